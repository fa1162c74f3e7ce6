"""The wiring of a node's bindings: those of its settings, as the reconciler keeps them."""

from __future__ import annotations

from envd.core.syncing import BindingView
from envd.settings.model import Binding


def binding_view(binding: Binding) -> BindingView:
    """A binding of the settings file, as one that is kept: its origin is the file."""
    return BindingView(
        name=binding.name,
        environment=binding.environment,
        prefix=binding.prefix,
        targets=binding.targets,
        route=binding.route,
        direction=binding.direction,
        conflict_policy=binding.conflict_policy,
        delete_policy=binding.delete_policy,
        layout=binding.layout,
        name_template=binding.name_template or "",
        credentials=binding.credentials or "",
        interval_seconds=binding.interval_seconds,
        windows=binding.windows,
        priority=binding.priority,
        suspended=binding.suspended,
        budget_dollars=binding.budget_dollars,
        budget_stops=binding.budget_stops,
        origin="file",
    )
