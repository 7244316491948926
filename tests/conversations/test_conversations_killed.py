"""Whatever step a process is killed at, an acknowledged message is stored once."""

import pytest
from breaking import BREAKS, break_on_purpose
from killing import play


async def test_a_hand_over_survives_a_kill_between_every_two_steps(world):
    """Seen to fail with each of BREAKS."""
    for seed in range(60):
        assert await play(world, seed) == [], f"seed {seed}"


async def test_a_hand_over_to_each_service_survives_kills(worlds):
    for seed in range(8):
        assert await play(worlds, seed) == [], f"seed {seed}"


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_a_hand_over_survives_a_thousand_kills(world):
    for seed in range(1000):
        assert await play(world, seed) == [], f"seed {seed}"


@pytest.mark.long
async def test_a_hand_over_to_each_service_survives_fifty_kills(worlds):
    for seed in range(50):
        assert await play(worlds, seed) == [], f"seed {seed}"


async def test_a_message_stands_once_even_in_a_service_that_would_store_it_twice(doubling_world):
    """No call outlives its time-out here, and whoever takes over reads before it writes."""
    for seed in range(60):
        assert await play(doubling_world, seed) == [], f"seed {seed}"


@pytest.mark.parametrize("broken", BREAKS)
async def test_the_proof_fails_on_a_hand_over_that_is_broken_on_purpose(doubling_world, broken):
    faults = []
    for seed in range(300):
        faults += await play(
            doubling_world, seed, change=lambda process: break_on_purpose(process, broken)
        )
        if faults:
            break
    assert faults, f"a hand-over with {broken} passes the proof"
