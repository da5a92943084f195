"""Plugin `resource`: what most guests ask for. `plugin.py` answers, `backends/` keeps, `model.py` has the port."""

from __future__ import annotations

from kbs.plugins.model import PluginContext
from kbs.plugins.resource.backends import external_stores
from kbs.plugins.resource.generation import Generation, generation_rules
from kbs.plugins.resource.plugin import ResourcePlugin

__all__ = ["ResourcePlugin", "build"]


def build(context: PluginContext) -> ResourcePlugin:
    """Entry point `kbs.plugins: resource`.

    Raises:
        ConfigInvalid: stores or generated resources that cannot work.
    """
    stores = external_stores(context.resource, context.data, context.clock)
    rules = generation_rules(context.resource.generate, context.data)
    return ResourcePlugin(context.store, context.clock, stores, Generation(rules, context.clock, context.random))
