"""Checkpoints: every layout that people have, and each way to be wrong in one line."""

import re
import warnings
import zipfile
from argparse import Namespace
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from pcc.errors import PccError, PccWarning
from pcc.frontend.checkpoint import check_finite, load_weights


def net() -> nn.Module:
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), bn=nn.BatchNorm2d(4)))


def filled() -> dict[str, Tensor]:
    return {key: torch.full_like(value, index + 1) for index, (key, value) in enumerate(net().state_dict().items())}


def loaded(state: dict[str, Tensor]) -> nn.Module:
    module = net()
    module.load_state_dict(state)
    return module


def other() -> dict[str, Tensor]:
    return {key: torch.zeros_like(value) for key, value in net().state_dict().items()}


def optimiser() -> dict[str, object]:
    optimizer = torch.optim.Adam((module := net()).parameters())
    module(torch.ones(1, 3, 5, 5)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


FORMS = {
    "state dict": lambda s: s,
    **{
        key: lambda s, key=key: {key: s, "epoch": 3}
        for key in ("state_dict", "model", "net", "model_state_dict", "params", "params_ema", "state_dict_ema")
    },
    **{
        prefix: lambda s, prefix=prefix: {prefix + k: v for k, v in s.items()}
        for prefix in ("module.", "model.", "_orig_mod.", "module.net.")
    },
    "beside an optimiser": lambda s: {"net": s, "optimizer": optimiser()},
    "of a GAN": lambda s: {"discriminator": {"conv.weight": torch.zeros(4, 3, 3, 3)}, "generator": s},
    "in a list": lambda s: {"models": [s]},
    "Lightning's": lambda s: {
        "state_dict": {f"model.{k}": v for k, v in s.items()},
        "hyper_parameters": Namespace(lr=np.float64(0.1)),
        "loops": defaultdict(int),
    },
    "beside arrays": lambda s: {
        "state_dict": s,
        "mean": np.ones(3),
        "accuracy": np.float32(0.5),
        "classes": {"cat", "dog"},
    },
    "a module": loaded,
    "modules in one another": lambda s: {"model": nn.Sequential(OrderedDict(inner=loaded(s)))},
}
"""What people save around a state dict."""


@pytest.mark.filterwarnings("ignore::pcc.errors.PccWarning")
@pytest.mark.parametrize("name", ["w.pt", "w.th", "w.pth.tar", "w"])
@pytest.mark.parametrize("wrap", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "pickles"])
def test_forms(tmp_path: Path, name: str, wrap, zipped: bool) -> None:
    torch.save(wrap(filled()), tmp_path / name, _use_new_zipfile_serialization=zipped)
    load_weights(module := net(), tmp_path / name)
    assert all(torch.equal(value, filled()[key]) for key, value in module.state_dict().items())


def test_buffers_that_are_not_saved_are_not_asked_for(tmp_path: Path) -> None:
    (saved := loaded(filled())).register_buffer("grid", torch.ones(3), persistent=False)
    torch.save(saved, tmp_path / "w.pt")
    load_weights(module := net(), tmp_path / "w.pt")
    assert torch.equal(module.state_dict()["bn.bias"], filled()["bn.bias"])


def test_modules_at_ever_more_places_end_in_one_line(tmp_path: Path) -> None:
    module: nn.Module = nn.Identity()
    for _ in range(25):
        module = nn.Sequential(module, module)
    torch.save(module, tmp_path / "w.pt")
    with pytest.raises(PccError, match="it has a module of more than 100,000 modules"):
        load_weights(net(), tmp_path / "w.pt")


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript(tmp_path: Path) -> None:
    for write in (torch.jit.script, lambda module: torch.jit.trace(module, torch.ones(1, 3, 5, 5))):
        torch.jit.save(write(loaded(filled()).eval()), tmp_path / "w.pt")
        load_weights(module := net(), tmp_path / "w.pt")
        assert all(torch.equal(value, filled()[key]) for key, value in module.state_dict().items())


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_torchscript_has_buffers_that_are_not_saved(tmp_path: Path) -> None:
    def gridded() -> nn.Module:
        module = loaded(filled()).eval()
        module.register_buffer("grid", torch.ones(3), persistent=False)
        return module

    torch.jit.save(torch.jit.trace(gridded(), torch.ones(1, 3, 5, 5)), tmp_path / "w.pt")
    load_weights(module := gridded(), tmp_path / "w.pt")
    assert all(torch.equal(value, filled()[key]) for key, value in module.state_dict().items())


def test_integers_are_no_weights(tmp_path: Path) -> None:
    """Counters are integers in the model, too."""
    for kind in (torch.int8, torch.bool):
        state = filled()
        state["conv.weight"] = state["conv.weight"].to(kind)
        torch.save(state, tmp_path / "w.pt")
        name = str(kind).removeprefix("torch.")
        words = rf"1 of another type: conv.weight \({name}, the model has float32\)"
        with pytest.raises(PccError, match=words):
            load_weights(net(), tmp_path / "w.pt")
    state = filled()
    state["bn.num_batches_tracked"] = torch.tensor(3.0)
    torch.save(state, tmp_path / "w.pt")
    load_weights(net(), tmp_path / "w.pt")


def test_of_several_the_average_is_taken_unless_a_key_says_otherwise(tmp_path: Path) -> None:
    torch.save({"model": other(), "ema": {"state_dict": filled()}}, path := tmp_path / "w.pt")
    with pytest.warns(PccWarning, match=r"'w.pt': took 'ema.state_dict'; 'model' would fit too: averages come"):
        load_weights(module := net(), path)
    assert torch.equal(module.state_dict()["bn.bias"], filled()["bn.bias"])
    load_weights(module, f"{path}:model")
    assert torch.equal(module.state_dict()["bn.bias"], other()["bn.bias"])
    with pytest.raises(PccError, match="it has no state dict 'modle': did you mean model"):
        load_weights(module, f"{path}:modle")


def under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


def takes(module: nn.Module, source: object, state: dict[str, Tensor]) -> None:
    load_weights(module, str(source))
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())


RULE = "averages come first, teachers last; FILE:KEY chooses"


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("taken", "left"),
    [
        ("ema_model", "model"),
        ("ema_model.module", "model"),
        ("student", "teacher"),
        ("model", "teacher"),
        ("teacher_ema", "student"),
        ("netG_ema", "netG"),
        ("modelEMA", "model"),
        ("averaged_model", "model"),
        ("swa", "net"),
    ],
)
def test_averages_come_first_and_teachers_last_whatever_the_order(
    tmp_path: Path, taken: str, left: str, turned: bool
) -> None:
    """Under prefixes and at places."""
    parts = {f"{taken}.": filled(), f"{left}.": other()}
    order = list(reversed(parts)) if turned else list(parts)
    torch.save({"state_dict": {k: v for name in order for k, v in under(name, parts[name]).items()}}, tmp_path / "a.pt")
    torch.save({name[:-1].split(".")[0]: parts[name] for name in order}, tmp_path / "b.pt")
    with pytest.warns(PccWarning, match=rf"took 'state_dict.{taken}'; 'state_dict.{left}' would fit too: {RULE}$"):
        takes(net(), tmp_path / "a.pt", filled())
    with pytest.warns(PccWarning, match=rf"took '{taken.split('.')[0]}'; '{left}' would fit too: {RULE}$"):
        takes(net(), tmp_path / "b.pt", filled())


@pytest.mark.filterwarnings("error")
def test_a_key_chooses_a_prefix(tmp_path: Path) -> None:
    state = {**under("model.", other()), **under("ema.module.", filled())}
    torch.save({"state_dict": state}, tmp_path / "nested.pt")
    torch.save(state, tmp_path / "flat.pt")
    save_file(state, tmp_path / "flat.safetensors")
    for source in ("nested.pt:state_dict.", "flat.pt:", "flat.safetensors:"):
        takes(net(), tmp_path / f"{source}model", other())
        takes(net(), tmp_path / f"{source}ema", filled())
        takes(net(), tmp_path / f"{source}ema.module", filled())
    with pytest.raises(PccError, match=r"it has no state dict 'state_dict.modle': did you mean state_dict.model\?"):
        load_weights(net(), f"{tmp_path / 'nested.pt'}:state_dict.modle")


def test_an_average_beside_names_without_a_prefix(tmp_path: Path) -> None:
    torch.save({**other(), **under("ema.", filled()), "loss.weight": torch.ones(2)}, path := tmp_path / "w.pt")
    with pytest.warns(
        PccWarning,
        match=rf"took 'ema'; 'the file itself' would fit too: {RULE}$",
    ):
        takes(net(), path, filled())


@pytest.mark.filterwarnings("error")
def test_the_file_itself_can_be_chosen(tmp_path: Path) -> None:
    torch.save({**other(), **under("ema.", filled())}, tmp_path / "w.pt")
    takes(net(), f"{tmp_path / 'w.pt'}:", other())


@pytest.mark.parametrize("name", ["old_schema_generator", "cinema", "exp_avg"])
def test_words_that_are_no_averages(tmp_path: Path, name: str) -> None:
    torch.save({"model": filled(), name: other()}, tmp_path / "w.pt")
    with pytest.warns(PccWarning, match=rf"took 'model'; '{name}' would fit too"):
        takes(net(), tmp_path / "w.pt", filled())


def test_mmengine_saves_the_average_as_the_state_dict(tmp_path: Path) -> None:
    """So that it is deployed by those who know no averages; the last weights are kept to go on with."""
    last = {**under("module.", other()), "steps": torch.tensor(3)}
    torch.save({"meta": {"mmengine_version": "0.10.4"}, "state_dict": filled(), "ema_state_dict": last}, tmp_path / "w")
    with pytest.warns(
        PccWarning, match=r"took 'state_dict'; 'ema_state_dict.module' would .*; mmengine saves the aver"
    ):
        takes(net(), tmp_path / "w", filled())


def test_what_an_optimiser_keeps_comes_last(tmp_path: Path) -> None:
    torch.save({"optimizer": {"ema": other()}, "model": filled()}, tmp_path / "w.pt")
    with pytest.warns(PccWarning, match=r"took 'model'; 'optimizer.ema' would fit too"):
        takes(net(), tmp_path / "w.pt", filled())


@pytest.mark.filterwarnings("ignore::pcc.errors.PccWarning")
def test_an_average_without_counters(tmp_path: Path) -> None:
    """Averaging loops leave integers out."""
    average = {key: value for key, value in filled().items() if value.is_floating_point()}
    torch.save({"model": other(), "ema": average}, tmp_path / "w.pt")
    load_weights(module := net(), tmp_path / "w.pt")
    assert torch.equal(module.get_parameter("conv.weight"), filled()["conv.weight"])


def test_shapes_decide_before_names(tmp_path: Path) -> None:
    wide = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 8, 3), bn=nn.BatchNorm2d(8))).state_dict()
    torch.save({"ema": wide, "model": filled()}, tmp_path / "w.pt")
    takes(net(), tmp_path / "w.pt", filled())


def shadows(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: state[name] for name, _ in net().named_parameters()}


@pytest.mark.parametrize("named", [True, False])
def test_averages_of_the_parameters_alone_are_completed(tmp_path: Path, named: bool) -> None:
    """torch_ema writes a list without names; the buffers are those of the network itself."""
    kept = shadows(filled()) if named else list(shadows(filled()).values())
    saved = shadows(other()) if named else list(shadows(other()).values())  # what is put back after an evaluation
    torch.save(
        {"ema": {"decay": 0.9, "collected_params": saved, "shadow_params": kept}, "model": under("module.", other())},
        path := tmp_path / "w.pt",
    )
    how = "" if named else r" \(a list without names: in order\)"
    words = f"took 'ema.shadow_params'{how}, with the other tensors of 'model.module'"
    with pytest.warns(PccWarning, match=rf"{words}; 'model.module' would fit too: {RULE}$"):
        takes(net(), path, other() | shadows(filled()))
    with pytest.warns(PccWarning, match=words):
        takes(net(), f"{path}:ema.shadow_params", other() | shadows(filled()))
    takes(net(), f"{path}:model", other())


def test_a_list_may_have_the_buffers_too(tmp_path: Path) -> None:
    torch.save({"model": other(), "ema": list(filled().values())}, tmp_path / "w.pt")
    with pytest.warns(PccWarning, match=r"took 'ema' \(a list without names: in order\); 'model' would"):
        takes(net(), tmp_path / "w.pt", filled())


def test_averages_that_do_not_fit_are_left_and_named(tmp_path: Path) -> None:
    kept = list(shadows(filled()).values())
    for wrong in (kept[:-1], [kept[1], kept[0], *kept[2:]], [*kept, torch.ones(1)]):
        torch.save({"model": other(), "ema": {"shadow_params": wrong}}, tmp_path / "w.pt")
        with pytest.warns(PccWarning, match=r"'w.pt': left 'ema.shadow_params', an average that does not fit$"):
            takes(net(), tmp_path / "w.pt", other())


@pytest.mark.filterwarnings("ignore::pcc.errors.PccWarning")
def test_a_parameter_at_two_places_is_averaged_once(tmp_path: Path) -> None:
    def tied() -> nn.Module:
        module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.BatchNorm1d(2))
        module[1].weight = module[0].weight
        return module

    average = [torch.full_like(value, 3) for value in tied().parameters()]
    torch.save({"model": tied().state_dict(), "ema": {"shadow_params": average}}, tmp_path / "w.pt")
    load_weights(module := tied(), tmp_path / "w.pt")
    assert all(bool((value == 3).all()) for value in module.parameters())


def test_weights_of_a_part_are_taken_and_the_rest_is_said(tmp_path: Path) -> None:
    torch.save({**{f"student.{k}": v for k, v in filled().items()}, "loss.weight": torch.ones(2)}, tmp_path / "w.pt")
    with pytest.warns(PccWarning, match=r"took the 7 tensors under 'student.', left 1 others"):
        load_weights(net(), tmp_path / "w.pt")


def pruned(module: nn.Module) -> None:
    prune.random_unstructured(module.conv, "weight", 0.5)


REPARAMETRISATIONS = {
    "masks": pruned,
    "weight norm": lambda module: nn.utils.weight_norm(module.conv),
    "weight norm, parametrised": lambda module: parametrizations.weight_norm(module.conv, dim=1),
    "weight norm of all": lambda module: nn.utils.weight_norm(module.conv, dim=None),  # pyright: ignore[reportArgumentType]  # as its documentation says
    "spectral norm": lambda module: nn.utils.spectral_norm(module.conv),
    "spectral norm, parametrised": lambda module: parametrizations.spectral_norm(module.conv),
    "a parametrisation": lambda module: nn.utils.parametrize.register_parametrization(
        module.conv, "weight", nn.Identity()
    ),
}


# A part of a weight names it: conv.weight_orig, and no tensor of this network has the weight's own name.
@pytest.mark.parametrize("name", ["masks", "weight norm, parametrised", "spectral norm, parametrised"])
def test_a_prefix_of_parts(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    saved = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3, bias=False)))
    REPARAMETRISATIONS[name](saved.eval())
    torch.save({"module." + key: value for key, value in saved.state_dict().items()}, tmp_path / "w.pt")
    load_weights(module := nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3, bias=False))), tmp_path / "w.pt")
    saved(torch.ones(1, 3, 5, 5))
    weight = saved.conv.weight  # pyright: ignore[reportAttributeAccessIssue]
    assert torch.allclose(module.get_parameter("conv.weight"), weight, atol=1e-6)  # pyright: ignore[reportArgumentType]


class Half(nn.Module):
    """A parametrisation without tensors."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight * 0.5

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight * 2


@pytest.mark.parametrize("prefix", ["", "model."])
@pytest.mark.parametrize(
    ("norm", "words"), [(parametrizations.weight_norm, "a weight"), (parametrizations.spectral_norm, "a spectral")]
)
def test_parametrisations_that_only_the_names_of_modules_tell(tmp_path: Path, norm, words: str, prefix: str) -> None:
    """PyTorch keeps the names in an attribute of the state dict."""
    saved = nn.Sequential(OrderedDict(model=net())) if prefix else net()
    conv = saved.get_submodule(f"{prefix}conv")
    norm(conv)
    torch.save({"state_dict": saved.eval().state_dict()}, tmp_path / "one.pt")
    nn.utils.parametrize.register_parametrization(conv, "weight", Half(), unsafe=True)
    torch.save({"state_dict": saved.eval().state_dict()}, tmp_path / "two.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_weights(net(), tmp_path / "one.pt")
    with pytest.warns(PccWarning, match=f"'conv.weight' is taken as {words} norm makes it: what the parametrization"):
        load_weights(net(), tmp_path / "two.pt")


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_parametrisations_of_a_traced_module(tmp_path: Path) -> None:
    saved = net().eval()
    parametrizations.weight_norm(saved.conv)  # pyright: ignore[reportArgumentType]
    nn.utils.parametrize.register_parametrization(saved.conv, "weight", Half(), unsafe=True)  # pyright: ignore[reportArgumentType]
    torch.jit.save(torch.jit.trace(saved, torch.ones(1, 3, 5, 5)), tmp_path / "w.pt")
    with pytest.warns(PccWarning, match="'conv.weight' is taken as a weight norm makes it: what the parametrization"):
        load_weights(net(), tmp_path / "w.pt")


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("norm", [nn.utils.spectral_norm, parametrizations.spectral_norm])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d, nn.Linear])
@pytest.mark.parametrize("dim", [0, 1])
@pytest.mark.parametrize("size", [2, 8])
def test_the_dimension_of_a_spectral_norm_is_found_out(tmp_path: Path, norm, kind, dim: int, size: int) -> None:
    """A layer with as many inputs as outputs: the sizes of its vectors do not tell."""

    def layer() -> nn.Module:
        return kind(size, size) if kind is nn.Linear else kind(size, size, 3)

    torch.manual_seed(0)
    x = torch.randn(2, size) if kind is nn.Linear else torch.randn(2, size, 5, 5)
    saved = norm(layer(), dim=dim)
    optimizer = torch.optim.SGD(saved.parameters(), lr=1e-2)
    for _ in range(5):
        optimizer.zero_grad()
        saved(x).square().mean().backward()
        optimizer.step()
    expected = saved.eval()(x)
    torch.save(saved.state_dict(), tmp_path / "w.pt")
    load_weights(module := layer(), tmp_path / "w.pt")
    assert torch.allclose(module(x), expected, atol=1e-5)


def test_vectors_of_another_weight_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    saved = parametrizations.spectral_norm(nn.Linear(16, 16))
    state = saved.state_dict()
    state["parametrizations.weight.original"] = torch.randn(16, 16)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(PccError, match="the spectral norm of 'weight' are singular vectors of it along no dimension"):
        load_weights(nn.Linear(16, 16), tmp_path / "w.pt")
    state["parametrizations.weight.0._v"] = torch.ones(15)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(PccError, match="parts of 'weight' do not fit one another: a spectral norm's vectors of 16 and"):
        load_weights(nn.Linear(16, 16), tmp_path / "w.pt")


def test_two_parts_that_are_no_weight_norm(tmp_path: Path) -> None:
    """Of rank one: numbers that broadcast all the same."""
    parts = {"original0": torch.ones(4, 1), "original1": torch.ones(1, 4)}
    torch.save({**under("parametrizations.weight.", parts), "bias": torch.ones(4)}, tmp_path / "w.pt")
    with pytest.raises(PccError, match="two parts of 'weight' are not those of a weight norm"):
        load_weights(nn.Linear(4, 4), tmp_path / "w.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_negative_bit_and_attributes_of_tensors(tmp_path: Path, zipped: bool) -> None:
    state = filled()
    # What it is the negative of is stored.
    state["conv.bias"] = torch.complex(state["conv.bias"], -state["conv.bias"]).conj().imag
    assert state["conv.bias"].is_neg()
    state["bn.bias"].note = "mine"  # pyright: ignore[reportAttributeAccessIssue]
    torch.save(state, tmp_path / "w.pt", _use_new_zipfile_serialization=zipped)
    takes(net(), tmp_path / "w.pt", filled())


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("change", REPARAMETRISATIONS.values(), ids=REPARAMETRISATIONS)
@pytest.mark.parametrize("conv", [nn.Conv2d, nn.ConvTranspose2d])
def test_reparametrised_weights_become_plain(tmp_path: Path, change, conv: type[nn.Module]) -> None:
    def network() -> nn.Module:
        return nn.Sequential(OrderedDict(conv=conv(4, 4, 3)))

    torch.manual_seed(0)
    change(saved := network())
    saved(torch.ones(1, 4, 5, 5))  # an old spectral norm finds its vectors when it is called
    saved.eval()(torch.ones(1, 4, 5, 5))
    torch.save(saved.state_dict(), tmp_path / "w.pt")
    load_weights(module := network(), tmp_path / "w.pt")
    assert torch.allclose(module.get_parameter("conv.weight"), saved.conv.weight, atol=1e-6)  # pyright: ignore[reportArgumentType, reportCallIssue, reportAttributeAccessIssue]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("parts", [("weight_g", "weight_v"), ("weight_orig", "weight_u", "weight_v")])
def test_reparametrised_weights_of_half_precision(tmp_path: Path, parts: tuple[str, ...]) -> None:
    """A filter's norm is beyond fp16."""
    torch.manual_seed(0)
    saved = nn.Linear(64, 8)
    saved.weight.data *= 1e4
    (nn.utils.weight_norm if len(parts) == 2 else nn.utils.spectral_norm)(saved)  # pyright: ignore[reportDeprecated]
    saved.eval()(torch.ones(1, 64))
    state = {key: value.half() for key, value in saved.state_dict().items()}
    assert set(parts) < set(state)
    torch.save(state, tmp_path / "w.pt")
    load_weights(module := nn.Linear(64, 8), tmp_path / "w.pt")
    assert (module.weight - saved.weight).abs().max() < 2**-9 * saved.weight.abs().max()


def test_safetensors_also_of_half_precision(tmp_path: Path) -> None:
    save_file(
        {key: value.half() if value.is_floating_point() else value for key, value in filled().items()},
        tmp_path / "weights.safetensors",
    )
    module = net()
    load_weights(module, tmp_path / "weights.safetensors")
    assert module.state_dict()["bn.weight"].dtype == torch.float32
    assert torch.equal(module.state_dict()["conv.bias"], filled()["conv.bias"])


def test_counters_of_batch_norm_may_be_missing(tmp_path: Path) -> None:
    state = filled()
    del state["bn.num_batches_tracked"]
    torch.save(state, tmp_path / "w.pt")
    load_weights(net(), tmp_path / "w.pt")


def test_keys_that_do_not_fit_are_named(tmp_path: Path) -> None:
    state = {f"layer.{i}.weight": torch.zeros(1) for i in range(5)} | {"conv.weight": torch.zeros(4, 3, 5, 5)}
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(PccError) as caught:
        load_weights(net(), tmp_path / "w.pt")
    assert str(caught.value) == (
        "weights 'w.pt' do not fit Sequential: 5 missing: conv.bias, bn.weight, bn.bias and 2 more;"
        " 5 unexpected: layer.0.weight, layer.1.weight, layer.2.weight and 2 more;"
        " 1 of another shape: conv.weight (4x3x5x5, model has 4x3x3x3)"
    )


def test_nothing_is_loaded_when_keys_do_not_fit(tmp_path: Path) -> None:
    torch.save({**filled(), "extra": torch.zeros(1)}, tmp_path / "w.pt")
    module = net()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(PccError, match="1 unexpected: extra"):
        load_weights(module, tmp_path / "w.pt")
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


class Opens:
    """What a hostile pickle does: call a function when it is read."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_a_pickle_is_run(tmp_path: Path, zipped: bool) -> None:
    torch.save(
        {"state_dict": filled(), "hook": Opens(str(tmp_path / "pwned"))},
        tmp_path / "w.pt",
        _use_new_zipfile_serialization=zipped,
    )
    load_weights(net(), tmp_path / "w.pt")
    assert not (tmp_path / "pwned").exists()


def tuples(depth: int) -> bytes:
    """A dict with tuples in tuples as its key, whose hash would overflow the stack."""
    return b"\x80\x02}K\x01" + b"\x85" * depth + b"K\x01s."


@pytest.mark.parametrize(
    "pickled",
    [
        tuples(1_000_000),
        b"\x80\x02}" + b"0}" * 6_000_000 + b".",
        b"\x80\x05\x96\xff\xff\xff\xff\x7f\x00\x00\x00abc.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02K\x01X\xff\xff\xff\xffabc.",
        b"\x80\x02]K\x01K\x02s.",
        b"\x80\x02K\x01",
        b"\x80\x02K\x01Q.",
    ],
    ids=["keys", "steps", "byte array", "registry", "text", "entries of a list", "no end", "persistent id"],
)
def test_hostile_pickles_end_in_one_line(tmp_path: Path, pickled: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("w/data.pkl", pickled)
    with pytest.raises(PccError, match="it is not a file that torch") as caught:
        load_weights(net(), tmp_path / "w.pt")
    assert "\n" not in str(caught.value)


def test_numbers_that_end_early(tmp_path: Path) -> None:
    torch.save(filled(), tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    content = (tmp_path / "w.pt").read_bytes()
    (tmp_path / "w.pt").write_bytes(content[:-4])
    with pytest.raises(PccError, match="the numbers of a tensor end early"):
        load_weights(net(), tmp_path / "w.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite(tmp_path: Path, value: float) -> None:
    state = filled()
    state["bn.running_var"][1] = value
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(PccError, match=r"not finite: bn.running_var \("):
        load_weights(net(), tmp_path / "w.pt")


def test_masks_are_infinite_and_hold_no_nan() -> None:
    module = net()
    module.register_buffer("mask", torch.full((3, 3), -torch.inf).triu(1))
    check_finite(module)
    module.register_buffer("other", torch.tensor([1.0, torch.nan]))
    with pytest.raises(PccError, match=r"not finite: other \(1 NaN"):
        check_finite(module)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("w.bin", b"", "'w.bin': it is not a file that torch.save wrote"),
        ("w.safetensors", b"\xff" * 8 + b"{}", "'w.safetensors': it cannot be read"),
        ("w.pt", b"not a zip", "'w.pt': it is not a file that torch.save wrote"),
        ("gone.pt", None, "there is no file"),
    ],
)
def test_files_that_are_not_checkpoints(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(PccError, match=words) as caught:
        load_weights(net(), tmp_path / name)
    assert "\n" not in str(caught.value)


def test_an_archive_that_grows_is_refused(tmp_path: Path) -> None:
    """Millions of zeros are thousands of bytes, and a file of some megabytes could be all of the memory."""
    torch.save({"weight": torch.zeros(5_000_000)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with pytest.raises(
        PccError,
        match=r"weights 'w.pt': the archive has .* bytes and would take 20,000,.*: PyTorch compresses no weights",
    ):
        load_weights(net(), tmp_path / "w.pt")


def test_tensors_that_are_not_plain_numbers(tmp_path: Path) -> None:
    for bend, words in (
        (lambda x: x.to_sparse(), "sparse_tensor"),
        (lambda x: x.to(torch.complex64), "complex64"),
        (lambda x: x.to("meta"), "meta_tensor_no_storage"),
    ):
        state = filled()
        key = next(iter(state))
        state[key] = bend(state[key])
        torch.save(state, tmp_path / "w.pt")
        with pytest.raises(PccError, match=rf"not plain real numbers: {re.escape(key)} \({words}"):
            load_weights(net(), tmp_path / "w.pt")


def test_dict_without_tensors(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "best": 0.5}, tmp_path / "w.pt")
    with pytest.raises(PccError, match="it holds no tensors with names"):
        load_weights(net(), tmp_path / "w.pt")
