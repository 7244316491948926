"""The driver of random steps, which a seed repeats."""

import model
import pytest
from drive import run_random_steps

pytestmark = pytest.mark.long


@pytest.mark.parametrize("seed", range(8))
async def test_random_steps_find_no_difference_between_store_and_model(backend, seed, tmp_path):
    with backend.empty(tmp_path) as url:
        await run_random_steps(seed, 150, url)


async def test_the_same_seed_repeats_the_same_steps():
    one, again, other = [(await run_random_steps(seed, 40)).steps for seed in (7, 7, 8)]
    assert one == again
    assert one != other


async def test_a_difference_is_reported_with_its_seed_and_its_steps(monkeypatch):
    monkeypatch.setattr("model.HOUR", 2 * model.HOUR)

    async def run_seeds():
        for seed in range(50):
            await run_random_steps(seed, 150)

    with pytest.raises(AssertionError) as failed:
        await run_seeds()
    assert "seed" in failed.value.__notes__[-1]
