# Releases every resource to every token that this broker accepts, whatever the appraisal said. For tests of transport.
package policy

import data.kbs.findings as found

default allow := false

allow if data.plugin == "resource"

findings := [found.equals("allow", "data.plugin", plugin, "resource")]

default plugin := null

plugin := data.plugin
