import numpy as np

from tuner.strategies import rng as keys


def test_equal_keys_give_equal_numbers_and_others_do_not():
    def draw(*key):
        return keys.generator(*key).random(3).tolist()  # type: ignore[arg-type]

    assert draw(1, "a", 2, "x") == draw(1, "a", 2, "x")
    assert draw(np.int64(1), "a") == draw(1, "a")
    others = [(1, "a"), (2, "a"), (1, "b"), (1, "a", 1), (1, "a", 0, 1), (1, "a", 2**32), (-1, "a")]
    assert len({tuple(draw(*key)) for key in others}) == len(others)


def test_numbers_stay_the_same_from_one_version_to_the_next():
    assert keys.seed32(0, "independent", 7, "x") == 1528970149


def test_seeds_for_libraries_fit_in_32_bits():
    assert all(0 <= keys.seed32(n, "a") < 2**32 for n in range(100))
    assert keys.new_seed() != keys.new_seed()
