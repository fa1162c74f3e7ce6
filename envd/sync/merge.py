"""What to do with one variable: a three-way merge of here, there, and when both were last equal.

With an anchor it is plain which side changed, so a change of one side goes to the other, and only
where both did is there a conflict. Without one, equal values are adopted, and of unequal ones
nobody knows the order: that is a conflict too, and never an overwrite. What a conflict throws away
goes on record before it is overwritten.

An edit beats a deletion that had not seen it, whoever made which: of the two only one can be lost.

Pure: no clock, no store. `needs_value` tells first whether the store's value has to be read.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, Literal

from envd.backends.contract import Item
from envd.core.syncing import Action, BindingView
from envd.sync.anchors import ABSENT, NOTHING, Anchor
from envd.sync.binding import writes_envd, writes_store
from envd.sync.ports import Fingerprint, Local

Side = Literal["store", "envd", ""]
STORE: Final = "store"
ENVD: Final = "envd"
NEITHER: Final = ""
SETTLED: Final = "settled"
"""In place of a stamp: whatever is here now counts as changed since."""


@dataclass(frozen=True, slots=True)
class Sides:
    """One variable: here, in the store, and what both were. None: it is not there.

    `settled` tells, of an anchor with a conflict, that somebody settled it. `unsure`: the store
    did not list it, and whether it is gone could not be confirmed. `hidden`: the store shows no
    values at all. `behind`: the write here that the anchor tells of has not come to this node.
    """

    here: Local | None
    there: Item | None
    anchor: Anchor | None
    settled: bool = False
    unsure: bool = False
    hidden: bool = False
    behind: bool = False

    @property
    def stamp(self) -> str:
        """The stamp of what is here."""
        return ABSENT if self.here is None else self.here.stamp.hex()

    @property
    def version(self) -> str:
        """The version of what is in the store."""
        return ABSENT if self.there is None else self.there.version


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do. `action` None: nothing, and where `anchor` differs, that is only noted.

    `side` is what is written. `loses` is the side whose write goes on record. `anchor` is what the
    anchor is to be when all is done, with the version or stamp of the written side still to be
    filled in; None: there is to be none.
    """

    action: Action | None
    side: Side
    reason: str
    anchor: Anchor | None = field(repr=False)
    loses: Side = NEITHER


@dataclass(frozen=True, slots=True)
class Left:
    """A decision to leave a variable as it is, and all that it was made of, but for the values.

    Of equal versions the values are equal: while nothing of it changes, neither does the decision,
    and the store's value need not be read again.
    """

    decision: Decision
    stamp: str
    version: str
    anchor: Anchor | None
    settled: bool
    behind: bool

    @staticmethod
    def of(sides: Sides, decision: Decision) -> Left:
        """What was decided of these sides."""
        return Left(decision, sides.stamp, sides.version, sides.anchor, sides.settled, sides.behind)

    def holds(self, sides: Sides) -> bool:
        """Whether it is what will be decided of these sides too."""
        return self == Left.of(sides, self.decision)


def needs_value(binding: BindingView, sides: Sides) -> bool:
    """Whether the store's value must be read: to decide, or because it may be taken."""
    there, anchor = sides.there, sides.anchor
    if there is None or there.value is not None or sides.hidden:
        return False
    if sides.here is None and anchor is None and not writes_envd(binding):
        return binding.delete_policy == "mirror"
    if anchor is None or anchor.conflict or anchor.version != there.version:
        return True
    takes_back = binding.conflict_policy == "store" and not writes_store(binding)
    return takes_back and sides.stamp != anchor.stamp


def decide(binding: BindingView, sides: Sides, fingerprint: Fingerprint) -> Decision:
    """What the binding's rules say of one variable."""
    if sides.unsure:
        why = "the store does not list it, and whether it is gone can't be confirmed"
        return Decision(Action.SKIP, NEITHER, why, sides.anchor)
    prints = _prints(sides, fingerprint)
    if sides.here is not None and sides.there is not None and prints.equal:
        return _equal(binding, sides, prints)
    if sides.behind:
        why = "this node has not seen yet what was in step before"
        return Decision(Action.SKIP, NEITHER, why, sides.anchor)
    anchor = sides.anchor
    if anchor is not None and anchor.conflict:
        waits = _waits(binding, sides)
        if waits is not None:
            return waits
        if sides.there is None or sides.there.version == anchor.version:
            # Somebody has seen what the store had, and said that what is here is right.
            anchor = replace(anchor, conflict="", stamp=SETTLED, print="")
            sides = replace(sides, anchor=anchor)
        else:
            sides = replace(sides, anchor=None)
    if sides.anchor is None or sides.anchor == NOTHING or _is_only_intent(sides.anchor):
        return _unanchored(binding, sides, prints)
    return _anchored(binding, sides, prints)


@dataclass(frozen=True, slots=True)
class _Prints:
    here: str
    there: str

    @property
    def equal(self) -> bool:
        return bool(self.here) and self.here == self.there


def _prints(sides: Sides, fingerprint: Fingerprint) -> _Prints:
    """The hashes of both values, "" for one that is not there or not known."""
    here, there, anchor = sides.here, sides.there, sides.anchor
    of_here = "" if here is None else fingerprint(here.value)
    if there is None:
        return _Prints(of_here, "")
    if there.value is not None:
        return _Prints(of_here, fingerprint(there.value))
    known = anchor is not None and anchor.version == there.version and not anchor.conflict
    return _Prints(of_here, anchor.print if known and anchor is not None else "")


def _is_only_intent(anchor: Anchor) -> bool:
    return (anchor.version, anchor.stamp, anchor.conflict) == (ABSENT, ABSENT, "")


def _equal(binding: BindingView, sides: Sides, prints: _Prints) -> Decision:
    """Both have the same value: what can be left is to have it secret on both, or to note it."""
    anchor, there = sides.anchor, sides.there
    assert there is not None, "both sides are there"
    made = "" if anchor is None else anchor.made
    intent = None if anchor is None else anchor.intent
    ours = bool(there.managed and there.stamp == sides.stamp)
    if not made and (ours or (intent is not None and intent.print == prints.there)):
        made = STORE
    noted = Anchor(there.version, sides.stamp, prints.here, made)
    if anchor == noted:
        return Decision(None, NEITHER, "in step", anchor)
    if anchor is None:
        return Decision(Action.ADOPT, NEITHER, "both sides have this value already", noted)
    noticed = _made_secret(binding, sides, noted)
    return noticed or Decision(None, NEITHER, "both sides came to the same value", noted)


def _made_secret(binding: BindingView, sides: Sides, noted: Anchor) -> Decision | None:
    """Of a value that just became secret on one side: have it be so on the other, once."""
    here, there, anchor = sides.here, sides.there, sides.anchor
    assert here is not None, "both sides are there"
    assert there is not None, "both sides are there"
    assert anchor is not None, "it is anchored"
    changed_here, changed_there = sides.stamp != anchor.stamp, sides.version != anchor.version
    if changed_here and here.secret and there.secret is False and writes_store(binding):
        return Decision(Action.UPDATE, STORE, "it became secret here", noted)
    shown = there.secret and not here.secret and there.value is not None
    if changed_there and shown and not changed_here and writes_envd(binding):
        return Decision(Action.UPDATE, ENVD, "it became secret in the store", noted)
    return None


def _waits(binding: BindingView, sides: Sides) -> Decision | None:
    """The decision while nobody has settled a conflict; None once it is, or does not matter."""
    anchor, there = sides.anchor, sides.there
    assert anchor is not None, "only an anchor has a conflict"
    if sides.settled or sides.here is None or there is None:
        return None
    if there.version != anchor.version:
        return _undecided(binding, sides, "the store's value changed again")
    why = f"nobody has settled it: envctl resolve ENV {there.key.variable or 'KEY'}"
    return Decision(Action.CONFLICT, NEITHER, why, anchor)


# -- without an anchor -----------------------------------------------------------------------


def _unanchored(binding: BindingView, sides: Sides, prints: _Prints) -> Decision:
    here, there, anchor = sides.here, sides.there, sides.anchor
    if here is None and there is None:
        return Decision(None, NEITHER, "gone on both sides", None)
    if there is None:
        return _only_here(binding, sides, prints)
    if anchor is not None and anchor.intent is not None and anchor.intent.print == prints.there:
        return _own_write(sides, prints)
    if here is None:
        return _only_there(binding, sides, prints)
    if there.managed and there.stamp and there.stamp < sides.stamp and writes_store(binding):
        behind = Anchor(there.version, sides.stamp, prints.here, STORE)
        return Decision(Action.UPDATE, STORE, "the store has what envd wrote earlier", behind)
    return _clash(binding, sides, prints, "the two sides differ, and nobody knows which is newer")


def _only_here(binding: BindingView, sides: Sides, prints: _Prints) -> Decision:
    if writes_store(binding):
        made = Anchor(ABSENT, sides.stamp, prints.here, STORE)
        return Decision(Action.CREATE, STORE, "the store does not have it", made)
    if binding.delete_policy == "mirror":
        return Decision(Action.DELETE, ENVD, "the store does not have it", None, loses=ENVD)
    why = "the store does not have it, and the binding only pulls"
    return Decision(Action.SKIP, NEITHER, why, sides.anchor)


def _only_there(binding: BindingView, sides: Sides, prints: _Prints) -> Decision:
    if writes_envd(binding) and sides.hidden:
        why = "the store does not show its values"
        return Decision(Action.SKIP, NEITHER, why, sides.anchor)
    if writes_envd(binding):
        made = Anchor(sides.version, ABSENT, prints.there, ENVD)
        return Decision(Action.CREATE, ENVD, "only the store has it", made)
    if binding.delete_policy == "mirror":
        why = "only the store has it, and it is to mirror what is here"
        if sides.hidden and binding.conflict_policy != "envd":
            reason = f"{why}, but shows no values: with the policy envd it is deleted"
            return Decision(Action.SKIP, NEITHER, reason, sides.anchor)
        return Decision(Action.DELETE, STORE, why, None, loses=STORE)
    why = "only the store has it, and envd did not create it"
    return Decision(Action.SKIP, NEITHER, why, sides.anchor)


def _own_write(sides: Sides, prints: _Prints) -> Decision:
    """What the store has is what envd was about to write there when it was interrupted."""
    anchor = sides.anchor
    assert anchor is not None, "it is anchored"
    assert anchor.intent is not None, "there was an intent"
    stamp = anchor.intent.stamp
    made = anchor.made or (STORE if anchor.version == ABSENT else "")
    noted = Anchor(sides.version, stamp, prints.there, made)
    return Decision(None, NEITHER, "it is envd's own write, whose answer was lost", noted)


# -- with an anchor --------------------------------------------------------------------------


def _anchored(binding: BindingView, sides: Sides, prints: _Prints) -> Decision:
    anchor = sides.anchor
    assert anchor is not None, "it is anchored"
    if sides.here is None and sides.there is None:
        return Decision(None, NEITHER, "gone on both sides", None)
    changed_here = sides.stamp != anchor.stamp
    changed_there = sides.version != anchor.version
    if changed_there and sides.there is not None:
        if anchor.intent is not None and prints.there == anchor.intent.print:
            return _own_write(sides, prints)
        if prints.there and prints.there == anchor.print:
            noted = replace(anchor, version=sides.version, intent=None)
            return Decision(None, NEITHER, "it was rewritten with the same value", noted)
    if changed_here and changed_there:
        return _both_changed(binding, sides, prints)
    if changed_here:
        return _here_changed(binding, sides, prints)
    if changed_there:
        return _there_changed(binding, sides, prints)
    return Decision(None, NEITHER, "in step", replace(anchor, intent=None))


def _here_changed(binding: BindingView, sides: Sides, prints: _Prints) -> Decision:
    anchor = sides.anchor
    assert anchor is not None, "it is anchored"
    if sides.here is None:
        return _deleted_here(binding, sides, prints)
    if writes_store(binding):
        action = Action.CREATE if sides.there is None else Action.UPDATE
        made = STORE if sides.there is None else anchor.made
        return Decision(
            action, STORE, "changed here", Anchor(ABSENT, sides.stamp, prints.here, made)
        )
    if binding.conflict_policy == "store" and sides.there is not None and not sides.hidden:
        back = Anchor(sides.version, ABSENT, prints.there, anchor.made)
        return Decision(Action.UPDATE, ENVD, "changed here; the store is right", back, loses=ENVD)
    return Decision(Action.SKIP, NEITHER, "changed here, and the binding only pulls", anchor)


def _deleted_here(binding: BindingView, sides: Sides, prints: _Prints) -> Decision:
    anchor = sides.anchor
    assert anchor is not None, "it is anchored"
    if not writes_store(binding):
        return Decision(Action.SKIP, NEITHER, "deleted here, and the binding only pulls", anchor)
    if binding.delete_policy == "never":
        return Decision(Action.SKIP, NEITHER, "deleted here; the policy deletes nothing", anchor)
    if binding.delete_policy == "mirror" or anchor.made == STORE:
        return Decision(Action.DELETE, STORE, "deleted here", None)
    why = "deleted here, and envd did not create it in the store"
    return Decision(Action.SKIP, NEITHER, why, anchor)


def _there_changed(binding: BindingView, sides: Sides, prints: _Prints) -> Decision:
    anchor = sides.anchor
    assert anchor is not None, "it is anchored"
    if sides.there is None:
        return _deleted_there(binding, sides, prints)
    if sides.here is None:
        return _only_there(binding, sides, prints)
    if not writes_envd(binding):
        return _drifted(binding, sides, prints, "changed in the store")
    if sides.hidden:
        why = "changed in the store, which does not show its values"
        return Decision(Action.SKIP, NEITHER, why, anchor)
    taken = Anchor(sides.version, ABSENT, prints.there, anchor.made)
    return Decision(Action.UPDATE, ENVD, "changed in the store", taken)


def _deleted_there(binding: BindingView, sides: Sides, prints: _Prints) -> Decision:
    anchor = sides.anchor
    assert anchor is not None, "it is anchored"
    if not writes_envd(binding):
        made = Anchor(ABSENT, sides.stamp, prints.here, STORE)
        return Decision(Action.CREATE, STORE, "it was deleted in the store", made)
    if binding.delete_policy == "never":
        why = "deleted in the store; the policy deletes nothing"
        return Decision(Action.SKIP, NEITHER, why, anchor)
    if binding.delete_policy == "mirror" or anchor.made:
        return Decision(Action.DELETE, ENVD, "deleted in the store", None)
    why = "deleted in the store, and it was on both sides before they were bound"
    return Decision(Action.SKIP, NEITHER, why, anchor)


def _both_changed(binding: BindingView, sides: Sides, prints: _Prints) -> Decision:
    anchor = sides.anchor
    assert anchor is not None, "it is anchored"
    if sides.there is None:
        if writes_store(binding):
            made = Anchor(ABSENT, sides.stamp, prints.here, STORE)
            return Decision(Action.CREATE, STORE, "changed here, deleted in the store", made)
        why = "changed here, deleted in the store, and the binding only pulls"
        return Decision(Action.SKIP, NEITHER, why, anchor)
    if sides.here is None:
        if writes_envd(binding) and not sides.hidden and binding.conflict_policy != "envd":
            made = Anchor(sides.version, ABSENT, prints.there, anchor.made)
            return Decision(Action.CREATE, ENVD, "deleted here, changed in the store", made)
        may = binding.delete_policy == "mirror" or anchor.made == STORE
        if binding.conflict_policy == "envd" and writes_store(binding) and may:
            why = "deleted here, changed in the store; what is here counts"
            return Decision(Action.DELETE, STORE, why, None, loses=STORE)
        why = "deleted here, but changed in the store since"
        return Decision(Action.SKIP, NEITHER, why, anchor)
    return _clash(binding, sides, prints, "changed on both sides")


# -- conflicts -------------------------------------------------------------------------------


def _drifted(binding: BindingView, sides: Sides, prints: _Prints, why: str) -> Decision:
    """The store was changed by others, and the binding only pushes."""
    anchor = sides.anchor
    match binding.conflict_policy:
        case "manual":
            return _undecided(binding, sides, why)
        case "store":
            reason = f"{why}, which the policy leaves as it is"
            return Decision(Action.SKIP, NEITHER, reason, anchor)
        case _:
            return _here_wins(sides, prints, f"{why}; what is here counts")


def _clash(binding: BindingView, sides: Sides, prints: _Prints, why: str) -> Decision:
    """Both sides are there and differ, and neither had seen the other."""
    known = sides.anchor is not None and not _is_only_intent(sides.anchor)
    if binding.conflict_policy == "manual" or (binding.conflict_policy == "lww" and not known):
        return _undecided(binding, sides, why)
    if not writes_envd(binding):
        return _drifted(binding, sides, prints, why)
    if sides.hidden:
        reason = f"{why}; the store does not show its values"
        return Decision(Action.SKIP, NEITHER, reason, sides.anchor)
    there_wins = binding.conflict_policy == "store" or (
        binding.conflict_policy == "lww" and (not writes_store(binding) or _is_later(sides))
    )
    if there_wins:
        return _there_wins(sides, prints, f"{why}; the store's counts")
    if not writes_store(binding):
        reason = f"{why}, and the policy keeps what is here"
        return Decision(Action.SKIP, NEITHER, reason, sides.anchor)
    return _here_wins(sides, prints, f"{why}; what is here counts")


def _is_later(sides: Sides) -> bool:
    """Whether the store's write is the later one: by its clock, a hint; else it was just seen."""
    here, there = sides.here, sides.there
    if here is None or there is None:
        return here is None
    return there.changed_ms is None or there.changed_ms > here.stamp.time_ms


def _undecided(binding: BindingView, sides: Sides, why: str) -> Decision:
    """A conflict that somebody has to settle; until then each side keeps what it has.

    Of a store that shows no values there is nothing to put on record: the policy must say it.
    """
    made = "" if sides.anchor is None else sides.anchor.made
    if sides.hidden:
        if binding.conflict_policy == "envd":
            noted = Anchor(sides.version, sides.stamp, "", made)
            return Decision(Action.UPDATE, STORE, f"{why}; what is here counts", noted)
        reason = f"{why}, and the store shows no values: with the policy envd it is overwritten"
        return Decision(Action.SKIP, NEITHER, reason, sides.anchor)
    waiting = Anchor(sides.version, sides.stamp, "", made)
    return Decision(Action.CONFLICT, NEITHER, why, waiting, loses=STORE)


def _here_wins(sides: Sides, prints: _Prints, why: str) -> Decision:
    made = "" if sides.anchor is None else sides.anchor.made
    noted = Anchor(ABSENT, sides.stamp, prints.here, made)
    action = Action.UPDATE if sides.hidden else Action.CONFLICT
    return Decision(action, STORE, why, noted, loses=NEITHER if sides.hidden else STORE)


def _there_wins(sides: Sides, prints: _Prints, why: str) -> Decision:
    made = "" if sides.anchor is None else sides.anchor.made
    noted = Anchor(sides.version, ABSENT, prints.there, made)
    return Decision(Action.CONFLICT, ENVD, why, noted, loses=ENVD)
