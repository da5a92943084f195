# Appraisal Policy for Evidence of class ppcie with exactly the decisions of upstream's default (attestation-service
# 2.6): that the verifier found the topology is the statement, so nothing is compared here.
package policy

trust_claims := {
	"executables": 0,
	"hardware": 0,
	"configuration": 2,
	"instance-identity": 0,
	"file-system": 0,
	"runtime-opaque": 0,
	"storage-opaque": 0,
	"sourced-data": 0,
}
