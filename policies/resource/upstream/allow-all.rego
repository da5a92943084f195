# Upstream's resource policy "allow all" (KBS protocol 7.3).
package policy

default allow := false

allow if data.plugin == "resource"
