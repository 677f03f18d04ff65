"""How far one run of the minimiser may take the strengths."""

import numpy as np
import pytest

from sae_rs.boxes import Box

FREE = (np.full(3, -100.0), np.full(3, 100.0))
AT = np.array([1.0, 2.0, -3.0])


def moved(entry: int, by: float) -> np.ndarray:
    end = AT.copy()
    end[entry] += by
    return end


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_run_that_ends_at_a_face_goes_on(sign: float) -> None:
    faces = Box().faces(AT, FREE, None)
    assert (faces.lower == AT - 3.0).all()
    assert (faces.upper == AT + 3.0).all()
    for entry in range(3):
        # there and back in the minimiser's units is off by a rounding
        assert faces.is_left_at(moved(entry, sign * 3.0 * (1.0 - 1e-15)))
        assert not faces.is_left_at(moved(entry, sign * 2.9))


def test_what_falls_further_beyond_a_face_is_held_up() -> None:
    """V falls against its gradient: beyond a lower face where that is positive. A bound of the search is none."""
    faces = Box().faces(AT, (np.array([-2.0, -100.0, -100.0]), np.full(3, 100.0)), None)
    low, high = faces.lower, faces.upper
    assert faces.holds_up(low, np.ones(3)).tolist() == [False, True, True]
    assert faces.holds_up(high, -np.ones(3)).tolist() == [True, True, True]
    assert not faces.holds_up(low, -np.ones(3)).any()
    assert not faces.holds_up(high, np.ones(3)).any()
    assert not faces.holds_up(AT, np.ones(3)).any()


def test_a_bound_of_the_search_is_no_face() -> None:
    bounds = (np.array([0.5, -100.0, -3.0]), np.array([100.0, 3.0, -3.0]))
    faces = Box().faces(AT, bounds, None)
    assert faces.lower.tolist() == [0.5, -1.0, -3.0]
    assert faces.upper.tolist() == [4.0, 3.0, -3.0]
    # an entry that is held is always on both of its bounds
    assert not faces.is_left_at(AT)
    assert not faces.is_left_at(moved(0, -0.5))
    assert not faces.is_left_at(moved(1, 1.0))
    assert faces.is_left_at(moved(1, -3.0))


def test_a_face_that_keeps_an_infeasible_trial_out_is_not_left() -> None:
    box = Box().narrowed(2.0)
    assert (box.width, box.used) == (0.5, 1)
    assert not box.faces(AT, FREE, None).is_left_at(moved(0, 0.5))


def test_where_the_first_step_bounds_a_run_its_faces_are_left() -> None:
    """Also when an infeasible trial is kept out: it lies further away than the first step reaches."""
    first = np.array([0.01, 0.02, 10.0])
    for box in (Box(), Box().narrowed(2.0)):
        half = np.minimum(box.width, 8.0 * 2.0**box.used * first)
        faces = box.faces(AT, FREE, first)
        np.testing.assert_allclose(faces.upper - AT, half, rtol=1e-12)
        assert faces.is_left_at(moved(0, half[0]))
        assert faces.is_left_at(moved(1, -half[1]))
        assert faces.is_left_at(moved(2, half[2])) == (not box.keeps_out)


def test_a_search_may_use_twelve_boxes() -> None:
    box = Box()
    for _ in range(12):
        assert box.is_allowed
        box = box.next()
    assert not box.is_allowed
    assert box.width == Box().width
