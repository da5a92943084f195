# Upstream's resource policy "deny all" (KBS protocol 7.3).
package policy

allow := false
