"""Where a search starts: seeds converged loosely and compared, by way of a gate's earlier temperatures."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from . import _core
from .gates import Gate
from .memory import is_crowded
from .search import Point, Search

# Inner iterations that a seed gets before the best one goes on, and that a weaker sparsity gets to look better.
COARSE_INNER = 15
GLANCE_INNER = 5
# Inner iterations in all of the searches from starts and at earlier temperatures; those of a well-posed problem take up
# to some three hundred.
STARTS_INNER = 500
# Outer iterations that each start gets before the best goes on.
GLANCE_OUTER = 3
# Outer iterations at each temperature before the last.
ROUND_OUTER = 5
# A start is given up when its V is behind by this many nats an entry of the data: the noise level would have to be off
# by half to explain it.
HOPELESS = 0.1
# Weaker sparsities are not tried once one is worse by this many nats an entry.
WORSE = 0.02


def in_frames(fit: Search, point: Point) -> Point:
    """The point with decoders of the rank that was asked for, loosely converged."""
    term = point.evaluation.term
    ranks = fit.problem.decoder_ranks(term)
    if all(rank is None for rank in ranks):
        return point
    return fit.coarse(term.with_decoder_ranks(ranks), point.rho, COARSE_INNER)


def annealed(fit: Search, gate: Gate, rho: _core.SaeManifoldRho | None, n_init: int, random_state: int) -> Point:
    """A first point from the seeds, by way of the gate's earlier temperatures where it has any.

    Each of them gets a short search, and the next one starts from its end with the same gates. The searches before the
    last temperature's have `STARTS_INNER` inner iterations, and none of them count against that one.
    """
    most_inner = fit.most_inner
    *earlier, _ = gate.stages()
    if not gate.free_logits(len(fit.problem.atoms)):
        earlier = []
    rounds = [*(fit.on(replace(fit.problem, gate=stage)) for stage in earlier), fit]
    for each in rounds:
        each.most_inner = STARTS_INNER
    for warm in rounds[:-1]:
        # beyond, an error of V would send the strength to its bound, from where the later rounds start
        warm.sparsity_ceiling = min(warm.sparsity_ceiling, warm.problem.gate.sparsity_ceiling(len(fit.problem.atoms)))
    here = rounds[0]
    if here is not fit:
        fit.earlier = partial(_from_warmer, here)
    seeds = here.problem.seeds(n_init, random_state, here.threads)
    # strengths of seeds follow the data's unit, which the classic criterion's fixed dispersion does not
    seeds = [(term, here.admitted(own)) for term, own in seeds]
    point = chosen_start(here, seeds, rho)
    for following in rounds[1:]:
        point = glance(here, point, ROUND_OUTER)
        term = following.problem.carried(point.evaluation.term, here.problem.gate)
        following.n_inner = here.n_inner
        here = following.after(here)
        point = here.settled(term, here.admitted(point.rho), COARSE_INNER)
        if here is not fit:
            fit.earlier = partial(_from_warmer, here)
    fit.n_inner, fit.most_inner = 0, most_inner
    return point


def _from_warmer(warm: Search, fit: Search) -> None:
    """What a search at an earlier temperature had come to when it was cut off, seen at this one."""
    best = warm.so_far()
    if best is not None:
        term = fit.problem.carried(best.evaluation.term, warm.problem.gate)
        fit.after(warm).coarse(term, fit.admitted(best.rho), COARSE_INNER)


def chosen_start(
    fit: Search, seeds: list[tuple[_core.SaeManifoldTerm, _core.SaeManifoldRho]], rho: _core.SaeManifoldRho | None
) -> Point:
    """The best of the seeds, each converged loosely at strengths that suit it, then of the sparsity strengths."""
    if rho is not None:
        rho = fit.admitted(rho)
        return min((fit.settled(term, rho, COARSE_INNER) for term, _ in seeds), key=value_at)
    if not fit.problem.gate.free_logits(seeds[0][0].n_atoms):
        return min((fit.coarse(term, own, COARSE_INNER) for term, own in seeds), key=value_at)
    # seeds are hard clusterings: they are compared where gates are sparse, which is also where rows are cheapest
    gate = fit.problem.gate
    others = () if is_crowded(fit.n_outputs, fit.problem.atoms, gate) else gate.sparsity_starts[1:]
    entries = fit.n_rows * fit.n_outputs
    least = min(_log_dispersion(own) for _, own in seeds)
    hopeful = [(term, own) for term, own in seeds if 0.5 * (_log_dispersion(own) - least) < HOPELESS]
    found: list[Point] = []
    for shift in (0.0, *gate.sparsity_detours):
        for term, own in hopeful:
            start = gate.sparsity_start(np.asarray(term.logits), np.asarray(term.support)) + shift
            found.append(fit.settled(term, _with_sparsity(own, min(start, fit.sparsity_ceiling)), COARSE_INNER))
        if any(np.isfinite(value_at(point)) for point in found):
            break
    tried = [_promising(fit, sorted(found, key=value_at))]
    for log_sparse in others:
        best = tried[0]
        point = fit.settled(
            best.evaluation.term, _with_sparsity(best.rho, min(log_sparse, fit.sparsity_ceiling)), GLANCE_INNER
        )
        point = _at_rest(fit, point, value_at(best))
        tried.append(point)
        if value_at(point) > value_at(best) + WORSE * entries:
            break
    return min(tried, key=value_at)


def _at_rest(fit: Search, point: Point, value: float) -> Point:
    """A point whose V seems lower than a value, converged further until its lead exceeds the descent of L that is left.

    Away from the inner optimum V means little: where rows have more variables than columns its determinant rises by
    more than L has yet to fall.
    """
    for _ in range(fit.max_inner // COARSE_INNER):
        inner, lead = point.evaluation.inner, value - value_at(point)
        if inner.status != "iteration_limit" or not 0.0 < lead < 0.5 * inner.decrement**2:
            break
        point = fit.coarse(point.evaluation.term, point.rho, COARSE_INNER)
    return point


def _log_dispersion(rho: _core.SaeManifoldRho) -> float:
    return float(np.log(rho.dispersion()))


def _promising(fit: Search, found: list[Point]) -> Point:
    """The best of some starts after a few steps of the search, since a start's own strengths say little about it.

    A start that lies so far behind that no strengths bring it back gets none.
    """
    hopeless = HOPELESS * fit.n_rows * fit.n_outputs
    best: Point | None = None
    for start in found:
        if best is not None and not value_at(start) < value_at(best) + hopeless:
            continue
        point = glance(fit, start, GLANCE_OUTER) if len(found) > 1 else start
        if best is None or value_at(point) < value_at(best):
            best = point
    assert best is not None
    fit.best, fit.n_iterations = None, 0
    return best


def glance(fit: Search, start: Point, max_iterations: int) -> Point:
    """A few steps of the search from a loosely converged point, as long as there are inner iterations for them."""
    if fit.is_spent:
        return start
    point = fit.above_floor(fit.begun(start.evaluation.term, start.rho))
    if point.is_led_on:
        point, _ = fit.search(point, max_iterations)
    return point


def value_at(point: Point) -> float:
    return float(point.evaluation.value)


def _with_sparsity(rho: _core.SaeManifoldRho, log_sparse: float) -> _core.SaeManifoldRho:
    flat = np.array(rho.to_flat())
    flat[0] = log_sparse
    return rho.from_flat(flat)
