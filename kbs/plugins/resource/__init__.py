"""Plugin `resource`: what most guests ask for. `plugin.py` answers, `backends/` keeps, `model.py` has the port."""

from __future__ import annotations

from kbs.plugins.model import PluginContext
from kbs.plugins.resource.backends import external_stores
from kbs.plugins.resource.plugin import ResourcePlugin

__all__ = ["ResourcePlugin", "build"]


def build(context: PluginContext) -> ResourcePlugin:
    """Entry point `kbs.plugins: resource`.

    Raises:
        ConfigInvalid: stores or generated resources that cannot work.
    """
    stores = external_stores(context.resource, context.data, context.clock)
    return ResourcePlugin(context.store, context.clock, stores)
