"""A participant's own receipts: checked after every round, kept over kills, and loud when they do not hold."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from msgspec.structs import replace

from ridotto.errors import PeerProtocolError, RefusedError, StorageError
from ridotto.participant.events import Event, EventKind
from ridotto.rounds.inclusion import Contributed, Inclusion, decode_contributed, encode_contributed
from ridotto.rounds.receipt import RECEIPT_CONTEXT, Receipt, SignedReceipt
from ridotto.secagg.messages import Consistency, Masked
from ridotto.trust.audit import audit
from ridotto.trust.keep import Receipts
from tests.participant.bench import Bench, StepTrainer, take_part
from tests.participant.fake import ME, key
from tests.participant.test_kills import Killed
from tests.trust.coordinator import ReceiptCoordinator


@dataclass
class Scene:
    """One participant that keeps receipts, and its coordinator."""

    folder: Path
    fake: ReceiptCoordinator

    def take_part(self) -> list[Event]:
        events: list[Event] = []
        receipts = Receipts(self.folder / "receipts")
        take_part(Bench(self.folder / "state", self.fake), StepTrainer(), receipts=receipts, on_event=events.append)
        return [event for event in events if event.kind is EventKind.RECEIPT]

    def files(self, ending: str) -> list[Path]:
        return sorted((self.folder / "receipts").glob(f"round-*.{ending}.json"))

    def kept(self) -> list[Contributed]:
        return [decode_contributed(path.read_bytes()) for path in self.files("proof")]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path, ReceiptCoordinator())


def test_every_round_leaves_a_checked_receipt_and_a_proof(scene: Scene) -> None:
    events = scene.take_part()
    assert [(event.round, event.attempt) for event in events] == [(1, 1), (2, 2)]
    assert all(f"The contribution of {ME} (SHA-256" in event.reason for event in events)
    assert scene.files("pending") == []
    for receipt, own in zip(scene.files("receipt"), scene.kept(), strict=True):
        said = audit(receipt.read_bytes(), scene.fake.identity.public, [own])
        assert any("was in the set of session" in one and "one of 4" in one for one in said)


@pytest.mark.skipif(os.name != "posix", reason="POSIX modes")
def test_only_the_owner_can_read_them(scene: Scene) -> None:
    scene.take_part()
    folder = scene.folder / "receipts"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_nothing_is_asked_for_without_a_folder(scene: Scene) -> None:
    asked: list[str] = []
    scene.fake.before = lambda request: asked.append(request.url.path)
    take_part(Bench(scene.folder, scene.fake))
    assert not any(path.endswith(("/receipt", "/proof")) for path in asked)


def test_a_kill_at_any_request_loses_no_receipt(tmp_path: Path) -> None:
    """At whichever request the process dies, before it is answered or after: there is a proof in the end."""

    def run(folder: Path, kill_at: int) -> tuple[Scene, int]:
        scene, count = Scene(folder, ReceiptCoordinator(rounds=1)), 0

        def tick(request: httpx.Request) -> None:
            nonlocal count
            count += 1
            if count == kill_at:
                raise Killed

        scene.fake.before = scene.fake.after = tick
        while True:
            try:
                scene.take_part()
            except Killed:
                continue
            return scene, count

    _, requests = run(tmp_path / "0", 0)
    assert requests > 20
    for at in range(1, requests + 1):
        scene, _ = run(tmp_path / str(at), at)
        assert [own.inclusion is not None for own in scene.kept()] == [True], at
        assert scene.files("pending") == []


@pytest.mark.parametrize("ending", ["receipt", "proof"])
def test_a_kill_between_two_files_is_made_good(ending: str, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Receipts._write

    def killed(self: Receipts, path: Path, data: bytes) -> None:
        if path.name.endswith(f".{ending}.json"):
            raise Killed
        write(self, path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Receipts, "_write", killed)
        with pytest.raises(Killed):
            scene.take_part()
    assert len(scene.files("pending")) == 1
    scene.take_part()
    assert [own.inclusion is not None for own in scene.kept()] == [True, True]
    assert scene.files("pending") == []


def signed_anew(fake: ReceiptCoordinator, **changes: object) -> Callable[[SignedReceipt], SignedReceipt]:
    """Return a lie that its coordinator has signed."""

    def lie(signed: SignedReceipt) -> SignedReceipt:
        receipt = replace(signed.receipt, **changes)
        return replace(
            signed, receipt=receipt, signature=fake.identity.sign(RECEIPT_CONTEXT, receipt.statement()).hex()
        )

    return lie


def refused(scene: Scene) -> str:
    with pytest.raises(PeerProtocolError) as caught:
        scene.take_part()
    assert (caught.value.peer, caught.value.exit_code) == ("coordinator", 5)
    (evidence,) = scene.files("refused")
    assert str(evidence) in caught.value.why
    assert len(scene.files("pending")) == 1
    assert scene.files("proof") == []
    return caught.value.why


@pytest.mark.parametrize("field", Receipt.__struct_fields__)
def test_a_receipt_with_any_other_field_is_refused(field: str, scene: Scene) -> None:
    """Once without a signature of its own, and once signed by a coordinator that lies."""
    value: object = {"round": 7, "attempt": 7, "sums": ()}.get(field, "0" * 64)
    scene.fake.lie = lambda signed: replace(signed, receipt=replace(signed.receipt, **{field: value}))
    assert "no valid signature" in refused(scene)
    scene.fake.lie = signed_anew(scene.fake, **{field: value})
    match field:
        case "sums":
            # It opened no sum, so it says: that is no contradiction, and proves nothing.
            assert scene.take_part()[0].reason.startswith("Not proved: ")
        case "record":
            # Whoever has the record sees that it is another one; a participant has none.
            assert "was in the set" in scene.take_part()[0].reason
        case "model":
            assert "was told" in refused(scene)
        case _:
            assert "about another round, attempt, plan or model" in refused(scene)


def test_another_signer_is_refused(scene: Scene) -> None:
    stranger = key("stranger")

    def lie(signed: SignedReceipt) -> SignedReceipt:
        signature = stranger.sign(RECEIPT_CONTEXT, signed.receipt.statement()).hex()
        return replace(signed, coordinator=stranger.public.hex(), signature=signature)

    scene.fake.lie = lie
    assert "not by" in refused(scene)


@pytest.mark.parametrize("what", ["proof", "index", "sid", "count", "root"])
def test_a_proof_that_does_not_hold_is_refused(what: str, scene: Scene) -> None:
    def of_sum(**changes: object) -> Callable[[SignedReceipt], SignedReceipt]:
        def lie(signed: SignedReceipt) -> SignedReceipt:
            (one,) = signed.receipt.sums
            return signed_anew(scene.fake, sums=(replace(one, **changes),))(signed)

        return lie

    def other(proof: Inclusion) -> Inclusion:
        changes = {"proof": (b"x" * 32, *proof.proof[1:]), "index": proof.index ^ 1, "sid": b"x" * 32}
        return replace(proof, **{what: changes[what]})

    if what in ("count", "root"):
        scene.fake.lie = of_sum(**{what: 1 if what == "count" else "0" * 64})
    else:
        scene.fake.lie_proof = other
    why = {"sid": "not about this session", "count": "below its own minimum"}
    assert why.get(what, "does not hold") in refused(scene)


def test_a_receipt_that_can_not_be_read_is_the_coordinators_fault(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scene.fake, "_receipt", lambda *_: httpx.Response(200, content=b"{}"))
    assert "not a receipt" in refused(scene)


def test_what_was_refused_is_checked_again_at_the_next_start(scene: Scene) -> None:
    honest = scene.fake.lie
    scene.fake.lie = signed_anew(scene.fake, plan="0" * 64)
    refused(scene)
    scene.fake.lie = honest
    assert len(scene.take_part()) == 2


def test_an_attempt_that_was_closed_has_a_receipt_or_the_participant_stops(scene: Scene) -> None:
    scene.fake.without = {1}
    with pytest.raises(RefusedError, match="closed attempt 1, and gives no receipt of it: there is no receipt"):
        scene.take_part()


def test_who_came_too_late_is_told_that_it_is_not_in_the_sum(scene: Scene) -> None:
    """Its vector is sent when the attempt is nearly over: the others are in the sum without it."""
    fake = scene.fake

    def too_late(request: httpx.Request) -> None:
        is_vector = request.url.path.endswith("messages") and b"Masked" in request.read()[:64]
        if is_vector and fake.attempt == 1 and fake.machine is not None:
            fake._carry_out("coordinator", fake.machine.expire(fake.clock.now + 1e6), None)

    fake.before = too_late
    events = scene.take_part()
    assert events[0].reason == (
        f"Not proved: that a contribution of {ME} was in a sum. "
        f"The coordinator said: no contribution of {ME} is in the sum of this session."
    )
    first, second = scene.kept()
    assert (first.inclusion, first.denied) == (None, f"no contribution of {ME} is in the sum of this session")
    assert second.inclusion is not None


def test_an_attempt_that_was_given_up_is_noted_and_no_error(scene: Scene) -> None:
    """The coordinator forgets an attempt after the vector came, as one that lost its disk may."""
    fake = scene.fake

    def give_up(request: httpx.Request) -> None:
        if fake.attempt == 1 and any(isinstance(message, Masked) for _, message in fake.heard):
            fake.before = lambda request: None
            fake.begin()

    fake.before = give_up
    events = scene.take_part()
    assert [(event.attempt, event.reason.startswith("Not proved: ")) for event in events] == [
        (1, True),
        (2, False),
        (3, False),
    ]
    assert any(own.denied == "there is no receipt of attempt 1 of round 1" for own in scene.kept())


def test_a_failed_round_proves_nothing_and_is_no_error(scene: Scene) -> None:
    fake = scene.fake
    fake.silent_from = Consistency
    tried = fake._close

    def close(*, failed: bool) -> None:
        fake.silent_from = None
        tried(failed=failed)

    fake._close = close  # type: ignore[method-assign]
    events = scene.take_part()
    assert "no sum of this session was opened" in events[0].reason
    assert [event.attempt for event in events] == [1, 2, 3]


def test_a_damaged_note_is_named(scene: Scene) -> None:
    folder = scene.folder / "receipts"
    folder.mkdir()
    note = folder / "round-1-00.pending.json"
    note.write_bytes(b"{}")
    with pytest.raises(StorageError, match=f"the note {note} is damaged"):
        Receipts(folder)


def test_notes_of_others_in_the_folder_are_left_alone(scene: Scene) -> None:
    scene.take_part()
    own = replace(scene.kept()[0], name="somebody", inclusion=None)
    note = scene.folder / "receipts" / "round-9-00.pending.json"
    note.write_bytes(encode_contributed(own))
    scene.take_part()
    assert note.exists()


def test_a_folder_that_can_not_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="can't be kept in"):
        Receipts(tmp_path / "file" / "receipts")


def test_no_note_takes_the_place_of_another(tmp_path: Path) -> None:
    """One session that is announced again in another attempt, or two participants with one folder."""
    scene = Scene(tmp_path, ReceiptCoordinator())
    scene.take_part()
    own = replace(scene.kept()[0], model=None, inclusion=None)
    keeper = Receipts(tmp_path / "both")
    for changed in (own, replace(own, attempt=own.attempt + 1), replace(own, name="somebody")):
        keeper.note(changed)
    assert len(list((tmp_path / "both").iterdir())) == 3
