"""LLaVA's answers by a small random model, and the two rewards made of answers."""

import io
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from tdpo_pipeline.config import AlgorithmSettings, RewardSettings, RunConfig
from tdpo_pipeline.rewards import llava as llava_module
from tdpo_pipeline.rewards import llava_bertscore as reward_module
from tdpo_pipeline.rewards.base import RewardError
from tdpo_pipeline.rewards.llava import LLAVA, Llava, as_jpeg, llava
from tdpo_pipeline.rewards.llava_bertscore import (
    QUESTION,
    LlavaBertScore,
    LlavaStrict,
    contained,
)
from tdpo_pipeline.rewards.loading import WeightsError
from tdpo_pipeline.rewards.model_files import ModelFile
from tdpo_pipeline.rewards.registry import (
    REWARDS,
    UnknownOptionError,
    check_task,
    load_reward,
    load_rewards,
)
from tests import tiny
from tests.rewards import published

WORDS = ["<unk>", "<s>", "</s>", "<image>", "USER", "ASSISTANT", ":", *"abcdefgh"]
SIZE = 28


def tokenizer():
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )


def model():
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=SIZE,
        patch_size=14,
    )
    text = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        initializer_range=1.0,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=3)
    vlm = LlavaForConditionalGeneration(config).eval()
    # Answers are of letters: special tokens would not be seen in them.
    vlm.lm_head.weight.data[: WORDS.index("a")] = 0.0
    return vlm


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    repository = LLAVA.folder(folder)
    model().save_pretrained(repository)
    tokenizer().save_pretrained(repository)
    return folder


@pytest.fixture
def files(monkeypatch, weights):
    """The repository's list of files, as many as a small model has."""
    names = ["config.json", "model.safetensors", "tokenizer.json"]
    small = LLAVA._replace(files=tuple(map(ModelFile, names)))
    monkeypatch.setattr(llava_module, "LLAVA", small)
    return weights


def jpeg(image):
    buffer = io.BytesIO()
    levels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(levels).save(buffer, format="JPEG", quality=80)
    return Image.open(buffer).convert("RGB")


def test_images_are_seen_as_jpegs():
    images = published.images(2, 24)
    found = as_jpeg(images)
    for image, same in zip(images, found, strict=True):
        expected = torch.from_numpy(np.array(jpeg(image))).permute(2, 0, 1) / 255
        assert torch.equal(same, expected)
    assert (found - images).abs().max() > 0.05


def test_answers_are_those_of_transformers_own_processor(files):
    vlm, images = llava(files), published.images(3, SIZE)
    processor = LlavaProcessor(
        CLIPImageProcessor(
            size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}
        ),
        tokenizer(),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    questions = ["a b", "c d e", "a b"]
    answers = vlm(images, questions)
    for image, question, answer in zip(images, questions, answers, strict=True):
        prompt = f"USER: <image>\n{question} ASSISTANT:"
        inputs = processor(images=jpeg(image), text=prompt, return_tensors="pt")
        assert inputs.input_ids[0].tolist() == vlm.prompt_ids(question)
        assert inputs.input_ids[0].tolist().count(3) == 4
        out = vlm.model.generate(**inputs, do_sample=False, max_new_tokens=64)
        text = vlm.decode(out[0, inputs.input_ids.shape[1] :].tolist())
        assert answer == text.strip() != ""
    assert len(set(answers)) > 1, "the model sees the images and reads the questions"


def test_a_tokenizer_of_another_model_is_refused(files):
    vlm = llava(files)
    other = Llava(vlm.model, lambda text: [1, 4, 5], vlm.decode)
    with pytest.raises(
        WeightsError, match="gives 0 image tokens where the model takes 4"
    ):
        other(published.images(1, SIZE), ["a"])


class Parrot(torch.nn.Module):
    """Stands in for LLaVA: gives prepared answers, and keeps what it was asked."""

    def __init__(self, answers):
        super().__init__()
        self.answers = answers
        self.asked = []

    def forward(self, images, questions):
        self.asked.append((images, list(questions)))
        return self.answers[: len(questions)]


class Same(torch.nn.Module):
    """Stands in for BERTScore: 1 for equal texts."""

    def forward(self, references, candidates):
        pairs = zip(references, candidates, strict=True)
        return torch.tensor([float(a == b) for a, b in pairs])


def test_the_answer_is_compared_with_the_prompt(tmp_path):
    parrot = Parrot(["The image contains a cat", "a dog"])
    reward = LlavaBertScore(parrot, Same(), tmp_path)
    images = published.images()
    scores = reward(images, ["a cat", "a dog"])
    assert scores.values.tolist() == [1.0, 0.0]
    assert parrot.asked[0][1] == [QUESTION] * 2
    own = LlavaBertScore(parrot, Same(), tmp_path, "What is it?", "{prompt}")
    assert own(images, ["a cat", "a dog"]).values.tolist() == [0.0, 1.0]
    assert parrot.asked[1][1] == ["What is it?"] * 2


def test_question_and_reference_are_options(monkeypatch, tmp_path):
    parrot = Parrot(["a cat and a ball"])
    monkeypatch.setattr(reward_module, "llava", lambda _: parrot)
    monkeypatch.setattr(reward_module, "bert_scorer", lambda _: Same())
    options = {"question": "What do you see?", "reference": "{prompt} and a ball"}
    task = RewardSettings(
        scorer="llava_bertscore", train_prompts="activities", options=options
    )
    rewards = load_rewards(["llava_bertscore"], tmp_path, task)
    found = rewards["llava_bertscore"](published.images(1), ["a cat"])
    assert found.values.tolist() == [1.0]
    assert parrot.asked[0][1] == ["What do you see?"]
    with pytest.raises(RewardError, match="must have the place {prompt}; it is 'x'"):
        load_reward("llava_bertscore", tmp_path, {"reference": "x"})


def test_a_run_with_a_misspelt_option_is_refused_before_it_starts():
    run = tiny.run_config().model_dump() | {
        "algorithm": AlgorithmSettings.model_validate(tiny.DDPO),
        "reward": "llava_bertscore",
    }
    task = {"scorer": "llava_bertscore", "train_prompts": "activities"}
    RunConfig.model_validate(run | {"task": task | {"options": {"question": "What?"}}})
    with pytest.raises(ValidationError, match="no option 'qestion'"):
        RunConfig.model_validate(run | {"task": task | {"options": {"qestion": "?"}}})


def test_options_that_a_reward_does_not_have_are_refused():
    check_task("llava_bertscore", None, needs_encoder=False, options=["question"])
    with pytest.raises(
        UnknownOptionError, match="no option 'qestion'; it has question"
    ):
        check_task("llava_bertscore", None, needs_encoder=False, options=["qestion"])
    with pytest.raises(
        UnknownOptionError, match="'aesthetic'.*'question'; it has none"
    ):
        check_task("aesthetic", None, needs_encoder=False, options=["question"])


@pytest.mark.parametrize(
    ("answers", "part"),
    [
        (["There are two cats.", "It is a cat."], 1.0),
        # Each answer belongs to its own question, and capitals count.
        (["There are two cats.", "Two."], 0.5),
        (["It is a cat.", "There are two."], 0.0),
        (["Two.", "Cat."], 0.0),
    ],
)
def test_the_part_of_answers_by_hand(answers, part):
    assert contained(answers, ["two", "cat"]) == part


def test_counting_prompts_have_questions_of_their_own(tmp_path):
    answers = [
        "There are three dogs.",
        "A dog.",
        "I see two of them.",
        "That is a bear.",
    ]
    parrot = Parrot(answers)
    images = published.images(2)
    scores = LlavaStrict(parrot, tmp_path)(images, ["three dogs", "two cats"])
    # "three" and "dog" are there; "two" is, "cat" isn't.
    assert scores.values.tolist() == [1.0, 0.5]
    seen, questions = parrot.asked[0]
    assert questions[0] == "How many dogs are there in this image?"
    assert torch.equal(seen, images[[0, 0, 1, 1]])


def test_a_prompt_without_questions_is_refused(tmp_path):
    reward = LlavaStrict(Parrot(["x"]), tmp_path)
    with pytest.raises(RewardError, match="no questions with answers for .* 'a ball'"):
        reward(published.images(1), ["a ball"])


def test_an_empty_prompt_is_refused(tmp_path):
    for reward in (
        LlavaBertScore(Parrot(["x"]), Same(), tmp_path),
        LlavaStrict(Parrot(["x"]), tmp_path),
    ):
        with pytest.raises(RewardError, match="prompt is empty"):
            reward(published.images(1), [" "])


def test_the_registered_reward_has_no_gradient_and_lends_clip_l(files):
    published.write_clip_l(files, published.clip(24, "quick_gelu"))
    reward = load_reward("llava_strict", files)
    assert not reward.differentiable
    assert not REWARDS["llava_strict"].differentiable
    assert reward.encoder.embedding_dim == 24
    assert reward(published.images(1), ["two cats"]).values.shape == (1,)


def published_name(name):
    """A weight's name in the published files, which are older than transformers 5."""
    for begin, old in (
        ("lm_head.", "language_model.lm_head."),
        ("model.language_model.", "language_model.model."),
        ("model.vision_tower.", "vision_tower.vision_model."),
        ("model.multi_modal_projector.", "multi_modal_projector."),
    ):
        if name.startswith(begin):
            return name.replace(begin, old, 1)
    raise KeyError(name)


def test_the_published_names_are_read(files, tmp_path):
    folder = llava_module.LLAVA.folder(tmp_path)
    shutil.copytree(llava_module.LLAVA.folder(files), folder)
    own = published.state(model())
    old = {published_name(name): weight for name, weight in own.items()}
    save_file(old, folder / "model.safetensors", {"format": "pt"})
    read = llava(tmp_path).model.state_dict()
    assert read.keys() == own.keys()
    for name, weight in own.items():
        assert torch.equal(read[name], weight), name


def test_the_full_size_of_llava():
    # transformers' defaults are LLaVA 1.5 7B's but for 64 more tokens.
    text = LlamaConfig(vocab_size=32064)
    with torch.device("meta"):
        full = LlavaForConditionalGeneration(LlavaConfig(text_config=text))
    # A layer of the language model: 4 x 4096^2 + 3 x 4096 x 11008 + 2 x 4096, 32 times;
    # 2 x 32064 x 4096 for tokens, and the last norm's 4096.
    language = 32 * (4 * 4096**2 + 3 * 4096 * 11008 + 2 * 4096)
    language += 2 * 32064 * 4096 + 4096
    # The projector's two layers; CLIP ViT-L/14 at 336 pixels without its projection.
    projector = 1024 * 4096 + 4096**2 + 2 * 4096
    tower = sum(p.numel() for p in full.model.vision_tower.parameters())
    count = sum(p.numel() for p in full.parameters())
    assert count == language + projector + tower
    assert 303e6 < tower < 304e6
    assert LLAVA.loaded == pytest.approx(2 * count, rel=1e-3)
    small = {published_name(name) for name in model().state_dict()}
    names = {published_name(name) for name in full.state_dict()}
    # Layer by layer those of the small one, which is loaded by them.
    layer = re.compile(r"layers\.\d+\.")
    assert {layer.sub("", name) for name in names} == {
        layer.sub("", name) for name in small
    }
    assert len(names) == 686
    assert Llava(full, list, str).image_tokens == (336 // 14) ** 2
