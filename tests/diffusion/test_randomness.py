import torch

from tdpo_pipeline.diffusion.randomness import generator, noise, torch_seed


def test_noise_depends_on_the_address_alone():
    whole = noise(1, "rollout", 2, range(6), 3, (4, 2))
    parts = [noise(1, "rollout", 2, samples, 3, (4, 2)) for samples in ([0, 1], [4, 5])]
    assert torch.equal(whole[:2], parts[0])
    assert torch.equal(whole[4:], parts[1])


def test_every_part_of_the_address_matters():
    addresses = [
        (0, "a", 0, 0, 0),
        (1, "a", 0, 0, 0),
        (0, "b", 0, 0, 0),
        (0, "a", 1, 0, 0),
        (0, "a", 0, 1, 0),
        (0, "a", 0, 0, 1),
    ]
    draws = {tuple(generator(*address).standard_normal(3)) for address in addresses}
    assert len(draws) == len(addresses)


def test_streams_do_not_run_into_each_other():
    # A long draw at one step must not repeat the draw of the next step.
    long = generator(0, "a", 0, 0, 0).standard_normal(10_000)
    following = generator(0, "a", 0, 0, 1).standard_normal(100)
    assert not set(long.tolist()) & set(following.tolist())


def test_torch_seed_is_repeatable_and_by_purpose():
    assert torch_seed(0, "lora") == torch_seed(0, "lora")
    assert torch_seed(0, "lora") != torch_seed(0, "critic")
