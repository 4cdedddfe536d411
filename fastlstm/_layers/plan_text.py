"""The plan of a call, in words."""

from __future__ import annotations

from typing import Any

from fastlstm._core.caches import Caches, size_text

Plan = dict[str, Any]  # the fields of fl_plan and what sequence.plan adds


def plan_text(plan: Plan, caches: Caches) -> str:
    """Return a plan as lines.  Backward has a segment, and forward has none."""
    if plan["segment"]:
        lines = {"backward": "", "threads": _threads(plan), "time": _segments(plan)}
    else:
        lines = {
            "forward": "",
            "threads": _threads(plan),
            "time": _chunks(plan),
            "input": _input(plan),
            "tiles": _tiles(plan),
        }
    lines["work space"] = size_text(plan["scratch"])
    if "tape" in plan:
        lines["tape"] = size_text(plan["tape"])
    lines["weights"] = _weights(plan, caches)
    return "\n".join(f"  {name:11} {text}" if text else name for name, text in lines.items())


def _threads(plan: Plan) -> str:
    """How many, what they share, and why they are no more."""
    workers = plan["workers"]
    text = f"{workers} of {plan['threads']}"
    if plan["split_units"]:
        text += " share the hidden units and meet after each step"
    elif workers > 1:
        text += f" share the rows, {_at_most(plan['batch'], workers)}"
    return text + _why_no_more(plan)


def _at_most(rows: int, workers: int) -> str:
    return f"{rows // workers} each" if rows % workers == 0 else f"up to {rows // workers + 1} each"


def _why_no_more(plan: Plan) -> str:
    workers, wanted = plan["workers"], plan["wanted"]
    if workers < wanted:
        lost = plan["most"] < wanted
        return "; teams of more have lost time lately" if lost else "; the system refused more"
    return "; more would not pay" if wanted < plan["threads"] else ""


def _steps(count: int) -> str:
    return "1 step" if count == 1 else f"{count} steps"


def _chunks(plan: Plan) -> str:
    if plan["chunk"] == plan["steps"]:
        return _steps(plan["steps"])
    return f"{_steps(plan['steps'])} in chunks of {plan['chunk']}, each through all layers"


def _segments(plan: Plan) -> str:
    text = _steps(plan["steps"])
    if plan["segment"] == plan["steps"]:
        return text
    return f"{text} in segments of {plan['segment']}, each added to the gradients of the weights"


def _input(plan: Plan) -> str:
    if not plan["ahead"]:
        return "multiplied with its weights in each step"
    return f"multiplied with its weights {_steps(plan['ahead'])} ahead"


def _tiles(plan: Plan) -> str:
    rows, units = plan["tile"]["rows"], plan["tile"]["units"]
    blocks = "1 block" if plan["blocks"] == 1 else f"{plan['blocks']} blocks"
    return f"{rows} x {units} (rows x units) at most, {blocks} of units"


def _weights(plan: Plan, caches: Caches) -> str:
    """Their size, and that of what a thread reads again and again: its share of one layer."""
    size, text = plan["weights"], size_text(plan["weights"])
    layer = "layer" if plan["directions"] == 1 else "layer and direction"
    shares = {
        layer: plan["layers"] * plan["directions"],
        "thread": plan["workers"] if plan["split_units"] else 1,
    }
    for whose, count in shares.items():
        if count > 1:
            size //= count
            text += f", {size_text(size)} a {whose}"
    return f"{text}: {_place(size, caches)}"


def _place(size: int, caches: Caches) -> str:
    """The largest cache that is too small, and the smallest that is not."""
    beyond = ""
    share = caches.l2 // caches.l2_sharers
    for name, room in (("L1d", caches.l1d), ("L2", share), ("L3", caches.l3)):
        if size <= room:
            return f"{beyond}within {name} ({size_text(room)})"
        if room:
            beyond = f"beyond {name} ({size_text(room)}), "
    return beyond.removesuffix(", ")
