"""The row program against finite differences of a plain evaluation, with bases and gates as a fit has them."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import sae_rs
from reference.gates.softmax import Softmax as ReferenceSoftmax
from sae_rs import SaeReconstructionRowProgram as Program
from sae_rs._core import basis_jets

Array = NDArray[np.float64]
TEMPERATURES = (0.5, 1.0, 2.0)
GATES = ("softmax", "logistic")


class Row:
    """A row of circles with random logits, angles and decoders: one logit and one angle an atom, in that order."""

    def __init__(self, gate: str = "softmax", temperature: float = 1.0, seed: int = 0, n_atoms: int = 3, p: int = 5):
        rng = np.random.default_rng(seed)
        self.gate, self.temperature, self.n_atoms, self.p = gate, temperature, n_atoms, p
        self.harmonics = [1 + k % 3 for k in range(n_atoms)]
        angles = rng.uniform(0.0, 2.0 * np.pi, n_atoms)
        jets = [
            basis_jets({"kind": "circle", "harmonics": h}, np.array([[t]]))
            for h, t in zip(self.harmonics, angles, strict=True)
        ]
        self.phi = [jet[0][0] for jet in jets]
        self.d_phi = [jet[1][0] for jet in jets]
        self.d2_phi = [jet[2][0] for jet in jets]
        self.decoder = [rng.standard_normal((2 * h + 1, p)) for h in self.harmonics]
        self.logits = rng.standard_normal(n_atoms)
        logistic = gate == "logistic"
        self.scale = rng.uniform(0.2, 1.0, n_atoms) if logistic else np.ones(n_atoms)
        self.shift = rng.uniform(-0.5, 0.5, n_atoms) if logistic else np.zeros(n_atoms)

    def program(self, **changes: Any) -> Program:
        arguments: dict[str, Any] = {
            "phi": self.phi,
            "d_phi": self.d_phi,
            "d2_phi": self.d2_phi,
            "decoder": self.decoder,
            "logits": self.logits,
            "gate": self.gate,
            "inverse_temperature": 1.0 / self.temperature,
            "gate_scale": self.scale,
            "gate_shift": self.shift,
        }
        return Program(**(arguments | changes))

    def gates(self, moved: Array) -> Array:
        x = (self.logits + moved - self.shift) / self.temperature
        if self.gate == "logistic":
            return self.scale / (1.0 + np.exp(-x))
        return np.exp(x) / np.exp(x).sum()

    def plain(self, u: Array) -> Array:
        """The reconstruction (p,) with the variables moved by u: logits, then angles of the local model."""
        a, t = self.gates(u[: self.n_atoms]), u[self.n_atoms :]
        out = np.zeros(self.p)
        for k in range(self.n_atoms):
            phi = self.phi[k] + self.d_phi[k][:, 0] * t[k] + 0.5 * self.d2_phi[k][:, 0, 0] * t[k] ** 2
            out += a[k] * (phi @ self.decoder[k])
        return out

    def difference(self, slots: tuple[int, ...], e: float) -> Array:
        """The mixed derivative (p,) in some slots, by central differences over all signs."""
        total = np.zeros(self.p)
        for signs in product((-1.0, 1.0), repeat=len(slots)):
            u = np.zeros(2 * self.n_atoms)
            for slot, sign in zip(slots, signs, strict=True):
                u[slot] += sign * e
            total += np.prod(signs) * self.plain(u)
        return total / (2.0 * e) ** len(slots)

    def tensor(self, order: int, e: float) -> Array:
        """Every derivative of one order by differences, (p, N, ..., N)."""
        n = 2 * self.n_atoms
        out = np.zeros((self.p, *(n,) * order))
        for slots in product(range(n), repeat=order):
            out[(slice(None), *slots)] = self.difference(slots, e * min(self.temperature, 1.0))
        return out


def distance(found: Array, expected: Array) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def orders(jets: Any) -> list[Array]:
    names = ("value", "gradient", "hessian", "t3", "t4")
    return [getattr(jets, name) for name in names if hasattr(jets, name)]


def same_bits(a: Any, b: Any) -> bool:
    return all(x.shape == y.shape and x.tobytes() == y.tobytes() for x, y in zip(orders(a), orders(b), strict=True))


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_all_columns_match_differences(gate: str, temperature: float) -> None:
    row = Row(gate, temperature)
    packed = row.program().reconstruction_all_columns_packed()
    assert isinstance(packed, sae_rs.Order2)
    np.testing.assert_allclose(packed.value, row.plain(np.zeros(6)), rtol=1e-14, atol=1e-14)
    assert distance(packed.gradient, row.tensor(1, 1e-5)) < 1e-8
    assert distance(packed.hessian, row.tensor(2, 1e-4)) < 1e-6


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_column_matches_differences_to_the_fourth_order(gate: str, temperature: float) -> None:
    row = Row(gate, temperature, n_atoms=2)
    t3, t4 = row.tensor(3, 2e-3), row.tensor(4, 1e-2)
    for c in range(row.p):
        tower = row.program().reconstruction_column(c)
        assert isinstance(tower, sae_rs.Tower4)
        assert distance(tower.t3, t3[c]) < 5e-5
        assert distance(tower.t4, t4[c]) < 5e-4
        for tensor, expected, tolerance in ((tower.t3, t3[c], 5e-5), (tower.t4, t4[c], 5e-4)):
            flipped = tensor.copy()
            at = np.unravel_index(np.abs(flipped).argmax(), flipped.shape)
            flipped[at] *= -1.0
            assert distance(flipped, expected) > tolerance


def test_softmax_gates_are_those_of_the_reference() -> None:
    row = Row(temperature=0.7, n_atoms=4)
    gate = ReferenceSoftmax(temperature=row.temperature)
    a, da, d2a = gate.jets(row.logits, np.ones(4, dtype=bool), 0.0)
    packed = row.program().reconstruction_all_columns_packed()
    curves = np.array([row.phi[k] @ row.decoder[k] for k in range(4)])
    np.testing.assert_allclose(packed.value, a @ curves, rtol=1e-13)
    # the reference pins the last logit, a shift that leaves the other derivatives as they are
    np.testing.assert_allclose(packed.gradient[:, :3], curves.T @ da[:, :3], rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(
        packed.hessian[:, :3, :3], np.einsum("kc,kuv->cuv", curves, d2a[:, :3, :3]), rtol=1e-11, atol=1e-14
    )


@pytest.mark.parametrize("gate", GATES)
def test_columns_agree_to_the_bit_however_they_are_asked_for(gate: str) -> None:
    program = Row(gate).program()
    packed = program.reconstruction_all_columns_packed()
    for c in range(program.n_outputs):
        column, tower = packed[c], program.reconstruction_column(c)
        assert all(x.tobytes() == y.tobytes() for x, y in zip(orders(column), orders(tower), strict=False))


@pytest.mark.parametrize("gate", GATES)
def test_border_channels_are_what_decoder_entries_multiply(gate: str) -> None:
    row = Row(gate)
    program = row.program()
    border = program.beta_border_order1_packed()
    assert isinstance(border, sae_rs.Order1)
    assert program.channels == [(k, b) for k in range(3) for b in range(len(row.phi[k]))]
    stacked = np.vstack(row.decoder)
    packed = program.reconstruction_all_columns_packed()
    np.testing.assert_allclose(border.value @ stacked, packed.value, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(np.einsum("su,sc->cu", border.gradient, stacked), packed.gradient, atol=1e-13)
    some = [(2, 0), (0, 1)]
    chosen = program.beta_border_order1_packed(some)
    for i, channel in enumerate(some):
        assert chosen[i] == border[program.channels.index(channel)]


@pytest.mark.parametrize("gate", GATES)
def test_four_rows_have_the_bits_of_each(gate: str) -> None:
    compared = 0
    for seed in range(20):
        rows = [Row(gate, TEMPERATURES[seed % 3], seed=10 * seed + i, p=16).program() for i in range(4)]
        assert Program.aligned(rows)
        batches: list[tuple[Any, Any]] = [
            (Program.reconstruction_all_columns_packed_batch4(rows), Program.reconstruction_all_columns_packed),
            (Program.beta_border_order1_packed_batch4(rows), Program.beta_border_order1_packed),
            (
                Program.reconstruction_column_batch4(rows, 3),
                lambda row: row.reconstruction_column(3),
            ),
        ]
        for batch, alone in batches:
            assert len(batch) == 4
            for lane, row in zip(batch, rows, strict=True):
                assert same_bits(lane, alone(row))
                compared += 1 if isinstance(lane, sae_rs.Tower4) else len(lane)
    assert compared >= 2000


@pytest.mark.parametrize(
    "change",
    [
        {"inverse_temperature": 3.0},
        {"gate": "logistic"},
        {"logit_slots": [2, 1, 0]},
        {"coord_slots": [[None], [4], [5]], "n_primaries": 6},
    ],
)
def test_rows_that_are_not_aligned_give_the_same(change: dict[str, Any]) -> None:
    rows = [Row(seed=i).program(**(change if i == 2 else {})) for i in range(4)]
    assert not Program.aligned(rows)
    for lane, row in zip(Program.reconstruction_all_columns_packed_batch4(rows), rows, strict=True):
        assert same_bits(lane, row.reconstruction_all_columns_packed())
    for tower, row in zip(Program.reconstruction_column_batch4(rows, 0), rows, strict=True):
        assert same_bits(tower, row.reconstruction_column(0))
    for lane, row in zip(Program.beta_border_order1_packed_batch4(rows, [(1, 0)]), rows, strict=True):
        assert same_bits(lane, row.beta_border_order1_packed([(1, 0)]))


def test_slots_say_where_a_derivative_goes() -> None:
    row = Row()
    free = row.program().reconstruction_all_columns_packed()
    # the third logit in slot 0, the first angle in slot 2, nothing in slot 1
    program = row.program(logit_slots=[None, None, 0], coord_slots=[[2], [None], [None]])
    assert program.n_primaries == 3
    packed = program.reconstruction_all_columns_packed()
    assert packed.value.tobytes() == free.value.tobytes()
    np.testing.assert_array_equal(packed.gradient[:, [0, 2]], free.gradient[:, [2, 3]])
    np.testing.assert_array_equal(packed.hessian[:, [[0], [2]], [0, 2]], free.hessian[:, [[2], [3]], [2, 3]])
    assert not packed.gradient[:, 1].any()
    assert not packed.hessian[:, 1].any()


def test_more_primaries_than_any_compiled_size() -> None:
    row = Row(n_atoms=35, p=2)
    packed = row.program().reconstruction_all_columns_packed()
    assert packed.hessian.shape == (2, 70, 70)
    for slots in ((0, 0), (3, 34), (2, 36), (40, 40), (36, 40)):
        expected = row.difference(slots, 1e-3)
        np.testing.assert_allclose(packed.hessian[:, slots[0], slots[1]], expected, atol=1e-6)


def test_results_are_arrays_of_their_own() -> None:
    packed = Row().program().reconstruction_all_columns_packed()
    assert packed.gradient.dtype == np.float64
    assert (packed.value.shape, packed.gradient.shape, packed.hessian.shape) == ((5,), (5, 6), (5, 6, 6))
    packed.gradient[:] = 0.0
    assert packed.gradient.any()
    column = packed[-1]
    assert (column.value.shape, column.gradient.shape) == ((), (6,))
    assert [c.value.item() for c in packed] == packed.value.tolist()
    assert packed == Row().program().reconstruction_all_columns_packed()
    assert packed != Row(seed=1).program().reconstruction_all_columns_packed()
    with pytest.raises(IndexError, match="column 5 is out of range for 5 columns"):
        packed[5]
    with pytest.raises(TypeError, match="no length"):
        len(column)
    assert repr(packed) == "Order2(columns=5, primaries=6)"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"phi": [np.ones(2)] * 3}, r"phi\[0\] has shape \[2\], expected \[3\]"),
        ({"d_phi": []}, "d_phi has 0 entries, expected one per atom: 3"),
        ({"d2_phi": [np.ones((3, 1, 2))] * 3}, r"d2_phi\[0\] has shape \[3, 1, 2\], expected \[3, 1, 1\]"),
        ({"decoder": [np.ones((3, 5)), np.ones((5, 4)), np.ones((7, 5))]}, r"decoder\[1\] has shape \[5, 4\]"),
        ({"logits": np.zeros(2)}, r"logits has shape \[2\], expected \[3\]"),
        ({"logits": np.array([0.0, np.nan, 0.0])}, r"logits must be finite; entry \[1\] is NaN"),
        ({"gate": "argmax"}, 'gate must be "softmax" or "logistic", got "argmax"'),
        ({"gate_scale": np.full(3, 0.5)}, "a softmax has no scale or shift"),
        ({"gate": "logistic", "gate_shift": np.zeros(4)}, r"gate_shift has shape \[4\], expected \[3\]"),
        ({"inverse_temperature": -1.0}, "inverse_temperature must be positive and finite, found -1"),
        ({"logit_slots": [0, 1]}, r"logit_slots has shape \[2\], expected \[3\]"),
        ({"logit_slots": [0, 1, 1]}, r"logit_slots\[2\] is slot 1, which logit_slots\[1\] has already"),
        ({"coord_slots": [[0], [None], [None]]}, r"coord_slots\[0\]\[0\] is slot 0, which logit_slots\[0\] has"),
        ({"n_primaries": 5}, r"coord_slots\[2\]\[0\] is slot 5, expected one below the number of primaries, 5"),
    ],
)
def test_bad_input_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Row().program(**change)


def test_bad_requests_are_refused() -> None:
    row = Row().program()
    with pytest.raises(ValueError, match="column is 5, expected one below 5"):
        row.reconstruction_column(5)
    with pytest.raises(ValueError, match=r"channels\[0\]: basis column is 3, expected one below 3"):
        row.beta_border_order1_packed([(0, 3)])
    with pytest.raises(ValueError, match="rows has 3 programs, expected 4"):
        Program.reconstruction_all_columns_packed_batch4([row] * 3)
    with pytest.raises(TypeError):
        Row().program(decoder=[np.ones((3, 5), dtype=np.float32)] * 3)
