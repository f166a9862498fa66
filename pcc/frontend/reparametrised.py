"""Weights that a checkpoint holds in parts: masks of ``torch.nn.utils.prune``, weight norm, spectral norm,
``parametrize``'s, each as PyTorch's functions write it."""

import re
import warnings
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from pcc.errors import PccError, PccWarning

_PART = re.compile(r"(?:(.*)_(?:orig|v)|((?:.*\.)?)parametrizations\.(.*)\.original1?)")
_LEAST_COSINE = 0.9
"""Of what a matrix makes of one of its singular vectors and the other one. One step of training after they were
computed leaves it far above; those of another matrix are seldom near."""
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def whole_name(name: str) -> str:
    """The name of the weight that a part with the weight's shape belongs to, or the name itself."""
    if not (found := _PART.fullmatch(name)):
        return name
    return found[1] if found[1] is not None else found[2] + found[3]


def plain_weights(
    state: Mapping[str, Tensor], model: nn.Module, modules: Collection[str] = frozenset()
) -> dict[str, Tensor]:
    """Weights for their parts, where the model has no such parts.

    ``modules`` are the names of the modules that the state dict was made of, where they are known: a parametrization
    without tensors shows itself only there. A `PccWarning` says where one's effect is missing.

    Weight norm (Salimans and Kingma, 2016): g v / |v|; spectral norm (Miyato et al., 2018): the weight over its largest
    singular value u^T W v.
    """
    names, plain = set(model.state_dict()), dict(state)

    def take(*keys: str) -> list[Tensor] | None:
        return [plain.pop(key) for key in keys] if all(key in plain and key not in names for key in keys) else None

    for key in state:
        if key.endswith("_mask") and (pair := take(f"{(weight := key.removesuffix('_mask'))}_orig", key)):
            plain[weight] = pair[0] * pair[1]
        elif key.endswith("_v") and (norm := take(f"{(weight := key.removesuffix('_v'))}_g", key)):
            plain[weight] = _weight_norm(weight, *norm)
        elif key.endswith("_v") and (
            spectral := take(f"{(weight := key.removesuffix('_v'))}_orig", f"{weight}_u", key)
        ):
            plain[weight] = _spectral_norm(weight, spectral, model)
        elif key.endswith(".original1") and (norm := take(key.removesuffix("1") + "0", key)):
            weight = whole_name(key)
            plain[weight] = _weight_norm(weight, *norm)
            _warn_of_others(weight, key.removesuffix(".original1"), modules, "a weight norm")
        elif key.endswith(".0._v") and (
            spectral := take(f"{(base := key.removesuffix('.0._v'))}.original", f"{base}.0._u", key)
        ):
            weight = whole_name(f"{base}.original")
            plain[weight] = _spectral_norm(weight, spectral, model)
            _warn_of_others(weight, base, modules, "a spectral norm")
    for key in list(plain):
        if (
            key.endswith(".original")
            and not any(other.startswith(key.removesuffix("original")) and other != key for other in plain)
            and (alone := take(key))
        ):
            plain[whole_name(key)] = alone[0]
            warnings.warn(
                f"'{whole_name(key)}' is taken as it is: what the parametrization that it had makes of it is not in "
                "the file",
                PccWarning,
                stacklevel=2,
            )
    return plain


def _warn_of_others(weight: str, base: str, modules: Collection[str], first: str) -> None:
    """That a weight had parametrizations after the first, as the modules' names tell."""
    if f"{base}.1" in modules:
        warnings.warn(
            f"'{weight}' is taken as {first} makes it: what the parametrization after that makes of it is not in the "
            "file",
            PccWarning,
            stacklevel=3,
        )


def _weight_norm(name: str, g: Tensor, v: Tensor) -> Tensor:
    # Of the whole weight, or of what has one place along a dimension.
    lengths = [(size, whole) for size, whole in zip(g.shape, v.shape, strict=False) if size != 1]
    if g.dim() and (g.dim() != v.dim() or len(lengths) > 1 or any(size != whole for size, whole in lengths)):
        raise PccError(
            f"the two parts of '{name}' are not those of a weight norm ({tuple(g.shape)} and {tuple(v.shape)}): remove "
            "the parametrization (torch.nn.utils.parametrize.remove_parametrizations) and save again"
        )
    g, v = g.float(), v.float()
    if not g.dim():
        return g * v / torch.linalg.vector_norm(v)
    return g * v / torch.linalg.vector_norm(v, dim=[dim for dim, size in enumerate(g.shape) if size == 1], keepdim=True)


def _spectral_norm(name: str, parts: list[Tensor], model: nn.Module) -> Tensor:
    """Which dimension is that of ``u``, the file does not say: PyTorch's default, or another that was asked for.

    Of several that have the right sizes, that one whose singular vectors ``u`` and ``v`` are: W v ~ s u, W^T u ~ s v.
    """
    weight, u, v = (part.float() for part in parts)
    usual = int(isinstance(dict(model.named_modules()).get(name.rpartition(".")[0]), _TRANSPOSED))
    dims = sorted(range(weight.dim()), key=lambda dim: dim != usual)
    matrices = [matrix for dim in dims if (matrix := weight.movedim(dim, 0).flatten(1)).shape == (*u.shape, *v.shape)]
    if not matrices:
        raise PccError(
            f"the parts of '{name}' do not fit one another: a spectral norm's vectors of {u.numel()} and {v.numel()} "
            f"numbers for a weight {tuple(weight.shape)}"
        )
    if len(matrices) > 1 and all(part.isfinite().all() for part in (weight, u, v)):
        fits = [(_cosine(matrix @ v, u), _cosine(matrix.T @ u, v)) for matrix in matrices]
        best = max(range(len(fits)), key=lambda index: sum(fits[index]))  # of equals the usual one
        if max(fits[best]) < _LEAST_COSINE:
            raise PccError(
                f"the vectors of the spectral norm of '{name}' are singular vectors of it along no dimension: run the "
                "network once in training, or remove the norm, and save again"
            )
        matrices = [matrices[best]]
    return weight / torch.dot(u, matrices[0] @ v)


def _cosine(x: Tensor, y: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(x, y, dim=0))
