# Appraisal Policy for Attestation Results: the default, for the other plugins too.
#
# Identities, disk keys, certificates and what a token or a program of one's own hands out are released as secrets are: to
# guests whose every submodule is affirming, on real hardware. A plugin that is not in this list is for nobody; take out of a
# copy what you do not use.
package policy

import data.kbs.affirming
import data.kbs.findings as found

plugins := {"external", "nebula-ca", "pkcs11", "provisioner", "resource", "spiffe"}

default allow := false

allow if {
	data.plugin in plugins
	affirming.token
}

# The default's first row is the one about the plugin.
findings := array.concat(
	[found.one_of("allow", "data.plugin", affirming.plugin, sort(plugins))],
	array.slice(affirming.findings, 1, count(affirming.findings)),
)
