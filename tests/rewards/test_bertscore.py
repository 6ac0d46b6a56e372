import json
import math

import pytest
import torch
from transformers import DebertaConfig, DebertaForSequenceClassification, DebertaModel

from tdpo_pipeline.rewards import bertscore
from tdpo_pipeline.rewards.bertscore import BertScorer, bert_scorer, recall
from tdpo_pipeline.rewards.loading import WeightsError
from tdpo_pipeline.rewards.model_files import DEBERTA
from tests.rewards import published
from tests.rewards.test_loading import Trap

SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]


def test_recall_by_hand():
    start, end = [0.0, 0.0, 1.0], [0.0, 0.0, -1.0]
    reference = torch.tensor([start, [2.0, 0.0, 0.0], [0.0, 3.0, 0.0], end])
    candidate = torch.tensor([start, [1.0, 1.0, 0.0], end])
    # Both words match (1, 1) / sqrt 2 best, at 1 / sqrt 2; the ends aren't counted.
    assert recall(reference, candidate).item() == pytest.approx(math.sqrt(0.5))
    # A word opposite to the candidate's word matches one of its ends, at 0.
    turned = torch.tensor([start, [1.0, 1.0, 0.0], [-1.0, -1.0, 0.0], end])
    assert recall(turned, candidate).item() == pytest.approx((1 + 0) / 2)
    # Longer candidates recall no less; recall isn't symmetric.
    assert recall(reference, torch.cat([candidate, reference])).item() == pytest.approx(
        1
    )
    assert recall(candidate, reference).item() == pytest.approx(math.sqrt(0.5))


def config():
    return DebertaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=64,
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
    )


@pytest.fixture
def classifier():
    torch.manual_seed(0)
    return DebertaForSequenceClassification(config()).eval()


@pytest.fixture
def folder(tmp_path, classifier, monkeypatch):
    """deberta-xlarge-mnli's repository: an older layout, and more than is needed."""
    monkeypatch.setattr(bertscore, "LAYER", 2)
    folder = DEBERTA.folder(tmp_path)
    folder.mkdir()
    config().save_pretrained(folder)
    content = published.state(classifier) | {"config": {"hidden_size": 16}}
    published.write_pickle(folder / "pytorch_model.bin", content)
    # Bytes as letters, a space being the letter of its own that GPT-2 gives it.
    letters = [*"abcdefghijklmnopqrstuvwxyzT", "\u0120"]
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *letters])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return tmp_path


@torch.no_grad()
def test_the_published_model_gives_the_layer_that_is_compared(folder, classifier):
    scorer = bert_scorer(folder)
    ids = scorer.encode("a cat")
    # [CLS] a space c a t [SEP]
    assert ids == [1, 5, 32, 7, 5, 24, 2]
    hidden = classifier.deberta(torch.tensor([ids]), output_hidden_states=True)
    torch.testing.assert_close(scorer.embed(" a cat "), hidden.hidden_states[2][0])


@torch.no_grad()
def test_scores_of_texts(folder):
    scorer = bert_scorer(folder)
    found = scorer(["a cat", "a cat", "a cat"], ["a cat", "the dog", "  "])
    assert found[0].item() == pytest.approx(1, abs=1e-5)
    expected = recall(scorer.embed("a cat"), scorer.embed("the dog"))
    torch.testing.assert_close(found[1], expected)
    assert found[1] < 0.999
    assert found[2] == 0


def test_layers_above_the_compared_one_are_dropped():
    model = DebertaModel(config())
    scorer = BertScorer(model, lambda text: [1, 2], layer=1)
    assert len(scorer.model.encoder.layer) == 1
    with pytest.raises(ValueError, match="layer 4 is none of the model's 3"):
        BertScorer(DebertaModel(config()), lambda text: [1, 2], layer=4)


def test_long_texts_are_cut_before_their_end(monkeypatch):
    monkeypatch.setattr(bertscore, "MAX_TOKENS", 4)
    scorer = BertScorer(DebertaModel(config()), lambda t: [1, 5, 6, 7, 8, 2], layer=1)
    cut = BertScorer(scorer.model, lambda t: [1, 5, 6, 2], layer=1)
    assert torch.equal(scorer.embed("x"), cut.embed("x"))


def test_a_pickle_that_runs_code_is_refused_and_not_run(folder, classifier):
    path = DEBERTA.folder(folder) / "pytorch_model.bin"
    trap = folder / "sprung"
    content = published.state(classifier) | {"x": Trap(trap)}
    published.write_pickle(path, content)
    with pytest.raises(WeightsError, match="more than tensors"):
        bert_scorer(folder)
    assert not trap.exists()


def test_weights_that_are_missing_are_named(folder, classifier):
    path = DEBERTA.folder(folder) / "pytorch_model.bin"
    content = published.state(classifier)
    del content["deberta.embeddings.word_embeddings.weight"]
    published.write_pickle(path, content)
    with pytest.raises(WeightsError, match="lacks 'embeddings.word_embeddings.weight'"):
        bert_scorer(folder)


def test_the_full_size_of_deberta():
    full = DebertaConfig(
        vocab_size=50265,
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=48,
        num_attention_heads=16,
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        position_biased_input=False,
        type_vocab_size=0,
    )
    with torch.device("meta"):
        names = set(DebertaForSequenceClassification(full).state_dict())
        model = DebertaModel(full)
    unused = {name for name in names if name.startswith(bertscore.UNUSED)}
    assert unused == {
        f"{part}.{kind}"
        for part in ("pooler.dense", "classifier")
        for kind in ("weight", "bias")
    }
    read = {name.removeprefix("deberta.") for name in names - unused}
    assert read == set(model.state_dict())
    assert len(model.encoder.layer) == 48
    scorer = BertScorer(model, list, bertscore.LAYER)
    assert len(scorer.model.encoder.layer) == 40
    count = sum(p.numel() for p in scorer.parameters())
    assert DEBERTA.loaded == pytest.approx(4 * count, rel=1e-3)
