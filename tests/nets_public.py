"""Networks as their users write them, small: one of each kind that people bring, with its operators and its tricks."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.nets import conv_bn, settle

Made = tuple[nn.Module, tuple[int, ...]]
"""A network and the shape of its input."""


class Net(nn.Module):
    """Parts by name, and what is computed with them."""

    def __init__(self, forward: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self.function = forward
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


# ---- attention and products ----


def mobile_vit() -> Made:
    """A MobileViT block: unfold into patches, transformer, fold, fuse (Mehta and Rastegari, 2022)."""

    def forward(net: Any, x: Tensor) -> Tensor:
        y = net.reduce(net.local(x))
        n, c, h, w = y.shape
        patches = y.reshape(n * c, h // 2, 2, w // 2, 2).transpose(2, 3).reshape(n, c, h * w // 4, 4).transpose(1, 3).reshape(n * 4, h * w // 4, c)
        patches = net.norm(net.transformer(patches))
        y = patches.reshape(n, 4, h * w // 4, c).transpose(1, 3).reshape(n * c, h // 2, w // 2, 2, 2).transpose(2, 3).reshape(n, c, h, w)
        return net.fuse(torch.cat([x, net.project(y)], 1))

    transformer = nn.TransformerEncoderLayer(12, 3, 24, dropout=0.0, activation=F.silu, batch_first=True, norm_first=True)
    parts = {"local": conv_bn(8, 8), "reduce": nn.Conv2d(8, 12, 1), "project": conv_bn(12, 8, 1), "fuse": conv_bn(16, 8, activation=nn.SiLU())}
    return Net(forward, transformer=transformer, norm=nn.LayerNorm(12), **parts), (2, 8, 8, 6)


def non_local() -> Made:
    """Non-local block, embedded Gaussian (Wang et al., 2018)."""

    def forward(net: Any, x: Tensor) -> Tensor:
        theta, phi, g = (part(x).flatten(2) for part in (net.theta, net.phi, net.g))
        attention = torch.matmul(theta.transpose(1, 2), phi).softmax(-1)
        y = torch.matmul(attention, g.transpose(1, 2)).transpose(1, 2).reshape(x.shape[0], -1, *x.shape[2:])
        return x + net.out(y)

    parts = {name: nn.Conv2d(8, 4, 1) for name in ("theta", "phi", "g")}
    return Net(forward, out=nn.Sequential(nn.Conv2d(4, 8, 1), nn.BatchNorm2d(8)), **parts), (2, 8, 7, 5)


def bilinear_cnn() -> Made:
    """Bilinear pooling: outer products of features, signed square root, normalisation (Lin et al., 2015)."""

    def forward(net: Any, x: Tensor) -> Tensor:
        features = net.features(x).flatten(2)
        product = torch.bmm(features, features.transpose(1, 2)) / features.shape[2]
        flat = product.flatten(1)
        return net.fc(F.normalize(torch.sign(flat) * torch.sqrt(flat.abs() + 1e-5)))

    return Net(forward, features=conv_bn(3, 6), fc=nn.Linear(36, 5)), (2, 3, 9, 7)


def botnet() -> Made:
    """Attention with relative positions by einsum (Srinivas et al., 2021)."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Conv2d(8, 24, 1, bias=False)
            self.height, self.width = nn.Parameter(torch.randn(2, 4, 5, 1)), nn.Parameter(torch.randn(2, 4, 1, 6))

        def forward(self, x: Tensor) -> Tensor:
            n, c, h, w = x.shape
            q, k, v = self.qkv(x).reshape(n, 3, 2, 4, h * w).unbind(1)
            scores = torch.einsum("nhdi,nhdj->nhij", q * 0.5, k)
            scores = scores + torch.einsum("nhdi,hdj->nhij", q, (self.height + self.width).flatten(2))
            return torch.einsum("nhij,nhdj->nhdi", scores.softmax(-1), v).reshape(n, c, h, w)

    return nn.Sequential(conv_bn(3, 8), Attention(), nn.BatchNorm2d(8), nn.ReLU()), (1, 3, 5, 6)


def vit_head() -> Made:
    """Class token, learnt positions, multi-head attention that returns its weights."""

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, 12, 4, 4)
            self.token, self.positions = nn.Parameter(torch.zeros(1, 1, 12)), nn.Parameter(torch.zeros(1, 7, 12))
            self.attention, self.norm, self.fc = nn.MultiheadAttention(12, 2, batch_first=True), nn.LayerNorm(12), nn.Linear(12, 5)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.patches(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
            y, weights = self.attention(x, x, x)
            return self.fc(self.norm(x + y)[:, 0]), weights

    return Head(), (2, 3, 8, 12)


# ---- decoders and generators ----


def unet() -> Made:
    def forward(net: Any, x: Tensor) -> Tensor:
        first = net.first(x)
        second = net.second(F.max_pool2d(first, 2))
        bottom = net.bottom(F.max_pool2d(second, 2))
        up = net.right_2(torch.cat([second, net.up_2(bottom)], 1))
        up = net.up_1(up)
        dy, dx = first.shape[2] - up.shape[2], first.shape[3] - up.shape[3]
        up = F.pad(up, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])
        return net.out(net.right_1(torch.cat([first, up], 1)))

    parts = {"first": conv_bn(3, 4), "second": conv_bn(4, 8), "bottom": conv_bn(8, 16), "right_2": conv_bn(16, 8), "right_1": conv_bn(8, 4)}
    ups = {"up_2": nn.ConvTranspose2d(16, 8, 2, 2), "up_1": nn.ConvTranspose2d(8, 4, 2, 2)}
    return Net(forward, out=nn.Conv2d(4, 2, 1), **parts, **ups), (1, 3, 12, 17)


def dcgan() -> Made:
    layers: list[nn.Module] = [nn.ConvTranspose2d(10, 16, 4, bias=False), nn.BatchNorm2d(16), nn.ReLU(True)]
    layers += [nn.ConvTranspose2d(16, 8, 4, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh()), (2, 10, 1, 1)


def style_transfer() -> Made:
    """Reflection padding, instance norm, residual blocks, upsampling (Johnson et al., 2016)."""

    def block(c_in: int, c_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
        return nn.Sequential(nn.ReflectionPad2d(kernel // 2), nn.Conv2d(c_in, c_out, kernel, stride), nn.InstanceNorm2d(c_out, affine=True), nn.ReLU())

    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.down(net.first(x))
        x = x + net.residual(x)
        return net.last(F.interpolate(x, scale_factor=2, mode="nearest"))

    last = nn.Sequential(nn.ReflectionPad2d(4), nn.Conv2d(8, 3, 9))
    return Net(forward, first=block(3, 6, 9), down=block(6, 8, 3, 2), residual=block(8, 8, 3), last=last), (1, 3, 14, 11)


def super_resolution() -> Made:
    layers = [nn.Conv2d(1, 8, 5, padding=2), nn.PReLU(8), nn.Conv2d(8, 8, 3, padding=1, padding_mode="replicate"), nn.PReLU()]
    return nn.Sequential(*layers, nn.Conv2d(8, 9, 3, padding=1), nn.PixelShuffle(3)), (1, 1, 9, 7)


def bicubic_residual() -> Made:
    """VDSR: what bicubic interpolation lacks."""

    def forward(net: Any, x: Tensor) -> Tensor:
        up = F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
        return up + net.body(up)

    return Net(forward, body=nn.Sequential(conv_bn(1, 8), nn.Conv2d(8, 1, 3, padding=1))), (1, 1, 9, 7)


# ---- sequences ----


def audio() -> Made:
    """Raw audio through 1-d convolutions (Dai et al., 2017)."""
    layers: list[nn.Module] = [nn.Conv1d(1, 8, 16, 4), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(4)]
    layers += [nn.Conv1d(8, 8, 3, padding=2, dilation=2, groups=2), nn.BatchNorm1d(8), nn.LeakyReLU(0.2), nn.AvgPool1d(2, ceil_mode=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 4), nn.LogSoftmax(-1)), (2, 1, 201)


def wavenet() -> Made:
    """Causal, dilated, gated, with skips."""

    def forward(net: Any, x: Tensor) -> Tensor:
        total: Any = 0
        for dilation, layer, skip in zip((1, 2, 4), net.layers, net.skips, strict=True):
            filtered, gate = layer(F.pad(x, (dilation, 0))).chunk(2, 1)
            z = torch.tanh(filtered) * torch.sigmoid(gate)
            total = total + skip(z)
            x = x + z
        return net.out(F.relu(total))

    layers = nn.ModuleList([nn.Conv1d(4, 8, 2, dilation=dilation) for dilation in (1, 2, 4)])
    return Net(forward, layers=layers, skips=nn.ModuleList([nn.Conv1d(4, 6, 1) for _ in range(3)]), out=nn.Conv1d(6, 4, 1)), (1, 4, 21)


def crnn() -> Made:
    """Text recognition: columns of a feature map through a bidirectional LSTM (Shi et al., 2015)."""

    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.features(x)
        x = x.squeeze(2).permute(2, 0, 1)
        x, _ = net.rnn(x)
        return F.log_softmax(net.fc(x), 2)

    features = nn.Sequential(conv_bn(1, 8), nn.MaxPool2d(2), conv_bn(8, 12), nn.MaxPool2d((2, 1)), nn.Conv2d(12, 12, (2, 1)), nn.ReLU())
    return Net(forward, features=features, rnn=nn.LSTM(12, 6, 2, bidirectional=True), fc=nn.Linear(12, 7)), (1, 1, 8, 18)


def gru_video() -> Made:
    """Frames through a CNN, then a GRU; the last state decides."""

    def forward(net: Any, x: Tensor) -> Tensor:
        n, t = x.shape[:2]
        features = net.features(x.flatten(0, 1)).mean((2, 3)).view(n, t, -1)
        return net.fc(net.rnn(features)[1][-1])

    return Net(forward, features=conv_bn(3, 6, stride=2), rnn=nn.GRU(6, 5, batch_first=True), fc=nn.Linear(5, 3)), (2, 4, 3, 8, 8)


# ---- modules inside residual networks ----


def eca() -> Made:
    """Channel attention by a 1-d convolution over channels (Wang et al., 2020)."""

    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x)
        y = net.conv(net.pool(x).squeeze(-1).transpose(-1, -2)).transpose(-1, -2).unsqueeze(-1)
        return x * y.sigmoid().expand_as(x)

    return Net(forward, stem=conv_bn(3, 9), pool=nn.AdaptiveAvgPool2d(1), conv=nn.Conv1d(1, 1, 3, padding=1, bias=False)), (2, 3, 7, 9)


def temporal_shift() -> Made:
    """TSM: channels move between frames, in place (Lin et al., 2019)."""

    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x)
        frames = x.view(-1, 4, *x.shape[1:])
        out = torch.zeros_like(frames)
        out[:, :-1, :2] = frames[:, 1:, :2]
        out[:, 1:, 2:4] = frames[:, :-1, 2:4]
        out[:, :, 4:] = frames[:, :, 4:]
        return net.conv(out.view_as(x)).view(-1, 4, 8, 7, 5).mean(1)

    return Net(forward, stem=conv_bn(3, 8), conv=conv_bn(8, 8)), (4, 3, 7, 5)


def convnext() -> Made:
    class Block(nn.Module):
        """Depthwise, then channels last: layer norm, two linear layers, a learnt scale (Liu et al., 2022)."""

        def __init__(self) -> None:
            super().__init__()
            self.depthwise, self.norm = nn.Conv2d(8, 8, 7, padding=3, groups=8), nn.LayerNorm(8, eps=1e-6)
            self.expand, self.reduce, self.gamma = nn.Linear(8, 32), nn.Linear(32, 8), nn.Parameter(torch.full((8,), 0.5))

        def forward(self, x: Tensor) -> Tensor:
            y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
            return x + (self.gamma * self.reduce(F.gelu(self.expand(y)))).permute(0, 3, 1, 2)

    class ChannelNorm(nn.Module):
        """Layer norm over the channels, channels first."""

        def forward(self, x: Tensor) -> Tensor:
            mean = x.mean(1, keepdim=True)
            var = (x - mean).pow(2).mean(1, keepdim=True)
            return (x - mean) / torch.sqrt(var + 1e-6)

    return nn.Sequential(nn.Conv2d(3, 8, 4, 4), ChannelNorm(), Block(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(8), nn.Linear(8, 5)), (2, 3, 28, 20)


def group_norm_resnet() -> Made:
    """Group norm and standardised weights (Kolesnikov et al., 2020)."""

    class Standardised(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            var, mean = torch.var_mean(self.weight, dim=[1, 2, 3], keepdim=True, unbiased=False)
            return F.conv2d(input, (self.weight - mean) / torch.sqrt(var + 1e-10), self.bias, self.stride, self.padding, self.dilation, self.groups)

    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x)
        return net.head(x + net.block(x))

    block = nn.Sequential(nn.GroupNorm(4, 8), nn.ReLU(), Standardised(8, 8, 3, padding=1), nn.GroupNorm(4, 8), nn.ReLU(), Standardised(8, 8, 3, padding=1))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    return Net(forward, stem=Standardised(3, 8, 3, padding=1), block=block, head=head), (2, 3, 9, 7)


def cbam() -> Made:
    """Channel and spatial attention (Woo et al., 2018)."""

    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x)
        x = x * torch.sigmoid(net.mlp(F.avg_pool2d(x, x.shape[2:]).flatten(1)) + net.mlp(F.max_pool2d(x, x.shape[2:]).flatten(1)))[:, :, None, None]
        pooled = torch.cat((torch.max(x, 1)[0].unsqueeze(1), torch.mean(x, 1).unsqueeze(1)), dim=1)
        return x * torch.sigmoid(net.spatial(pooled))

    mlp = nn.Sequential(nn.Linear(8, 2), nn.ReLU(), nn.Linear(2, 8))
    return Net(forward, stem=conv_bn(3, 8), mlp=mlp, spatial=nn.Conv2d(2, 1, 7, padding=3, bias=False)), (2, 3, 9, 7)


def senet() -> Made:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x)
        return F.relu(x * net.gate(x.mean((2, 3))).view(*x.shape[:2], 1, 1) + x)

    return Net(forward, stem=conv_bn(3, 8), gate=nn.Sequential(nn.Linear(8, 2), nn.ReLU(), nn.Linear(2, 8), nn.Sigmoid())), (2, 3, 7, 9)


def shufflenet() -> Made:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x)
        kept, worked = x.chunk(2, 1)
        return F.channel_shuffle(torch.cat([kept, net.branch(worked)], 1), 2)

    return Net(forward, stem=conv_bn(3, 8), branch=nn.Sequential(conv_bn(4, 4, 1), conv_bn(4, 4, groups=4, activation=nn.Identity()))), (2, 3, 7, 9)


def efficientnet() -> Made:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x)
        y = net.depthwise(net.expand(x))
        return x + net.project(y * net.gate(y))

    gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(12, 3, 1), nn.SiLU(), nn.Conv2d(3, 12, 1), nn.Sigmoid())
    parts = {"stem": conv_bn(3, 6, stride=2, activation=nn.SiLU()), "expand": conv_bn(6, 12, 1, activation=nn.SiLU())}
    depthwise, project = conv_bn(12, 12, 5, groups=12, activation=nn.SiLU()), conv_bn(12, 6, 1, activation=nn.Identity())
    return Net(forward, depthwise=depthwise, gate=gate, project=project, **parts), (2, 3, 14, 13)


# ---- families of classifiers and of dense prediction ----


def inception() -> Made:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = F.local_response_norm(net.stem(x), 5)
        pooled = F.max_pool2d(x, 3, 2, ceil_mode=True)
        return torch.cat([branch(pooled) for branch in net.branches], 1)

    pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_bn(8, 4, 1))
    factored = nn.Sequential(nn.Conv2d(8, 4, (1, 3), padding=(0, 1)), nn.ReLU(), nn.Conv2d(4, 4, (3, 1), padding=(1, 0)))
    average = nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), conv_bn(8, 4, 1))
    return Net(forward, stem=conv_bn(3, 8), branches=nn.ModuleList([conv_bn(8, 4, 1), factored, pool, average])), (1, 3, 14, 12)


def densenet() -> Made:
    def forward(net: Any, x: Tensor) -> Tensor:
        features = [net.stem(x)]
        for layer in net.layers:
            features.append(layer(torch.cat(features, 1)))
        return net.transition(torch.cat(features, 1))

    layers = nn.ModuleList([nn.Sequential(nn.BatchNorm2d(6 + 4 * i), nn.ReLU(), nn.Conv2d(6 + 4 * i, 4, 3, padding=1, bias=False)) for i in range(3)])
    transition = nn.Sequential(nn.BatchNorm2d(18), nn.ReLU(), nn.Conv2d(18, 9, 1, bias=False), nn.AvgPool2d(2, 2))
    return Net(forward, stem=nn.Conv2d(3, 6, 3, padding=1), layers=layers, transition=transition), (1, 3, 10, 9)


def hrnet() -> Made:
    """Two resolutions that exchange what they know (Sun et al., 2019)."""

    def forward(net: Any, x: Tensor) -> Tensor:
        high = net.stem(x)
        low = net.down(high)
        mixed_high = F.relu(high + F.interpolate(net.up(low), size=high.shape[-2:], mode="bilinear", align_corners=True))
        mixed_low = F.relu(low + net.cross(high))
        return net.head(torch.cat([mixed_high, F.interpolate(mixed_low, size=high.shape[-2:], mode="bilinear")], 1))

    downs = {"down": conv_bn(6, 8, stride=2), "cross": conv_bn(6, 8, stride=2, activation=nn.Identity())}
    return Net(forward, stem=conv_bn(3, 6), up=conv_bn(8, 6, 1, activation=nn.Identity()), head=nn.Conv2d(14, 4, 1), **downs), (1, 3, 11, 13)


def aspp() -> Made:
    """DeepLab's pyramid of dilations, and PSPNet's of pools."""

    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x)
        size = x.shape[-2:]
        parts = [branch(x) for branch in net.branches]
        parts += [F.interpolate(F.adaptive_avg_pool2d(x, bins), size=size, mode="bilinear", align_corners=False) for bins in (1, 2, 3)]
        return net.head(torch.cat(parts, 1)).argmax(1)

    branches = nn.ModuleList([conv_bn(6, 4, padding=rate, dilation=rate) for rate in (1, 2, 4)])
    return Net(forward, stem=conv_bn(3, 6, stride=2), branches=branches, head=nn.Conv2d(12 + 18, 5, 1)), (1, 3, 21, 18)


def repvgg() -> Made:
    def forward(net: Any, x: Tensor) -> Tensor:
        return F.relu(net.three(x) + net.one(x) + net.same(x))

    three, one = (nn.Sequential(nn.Conv2d(6, 6, k, padding=k // 2, bias=False), nn.BatchNorm2d(6)) for k in (3, 1))
    return Net(forward, three=three, one=one, same=nn.BatchNorm2d(6)), (1, 6, 7, 9)


def octave_blur() -> Made:
    """Anti-aliased downsampling (Zhang, 2019): a fixed blur of a reflected border, applied to each channel."""

    class Blur(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            row = torch.tensor([1.0, 2.0, 1.0])
            self.register_buffer("filter", (row[:, None] * row / 16).repeat(6, 1, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.get_buffer("filter"), stride=2, groups=x.shape[1])

    return nn.Sequential(conv_bn(3, 6), nn.MaxPool2d(2, 1), Blur()), (1, 3, 10, 9)


# ---- heads ----


def arcface() -> Made:
    """Cosines between features and classes."""

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.fc, self.weight = conv_bn(3, 6, stride=2), nn.Linear(6, 8), nn.Parameter(torch.randn(5, 8))

        def forward(self, x: Tensor) -> Tensor:
            embedding = self.fc(self.features(x).mean((2, 3)))
            norm = torch.norm(embedding, 2, 1, True)
            return 30 * F.linear(embedding / norm, F.normalize(self.weight)).clamp(-1, 1)

    return Head(), (2, 3, 8, 9)


def siamese() -> Made:
    def forward(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = (net.features(part).flatten(1) for part in x.split(1, 1))
        return F.cosine_similarity(first, second), F.pairwise_distance(first, second)

    return Net(forward, features=nn.Sequential(conv_bn(1, 4), nn.AdaptiveMaxPool2d(2))), (3, 2, 9, 8)


def soft_argmax() -> Made:
    """Key points as expected positions, from integer grids."""

    def forward(net: Any, x: Tensor) -> Tensor:
        heat = net.heat(x)
        n, c, h, w = heat.shape
        heat = heat.flatten(2).softmax(-1).view(n, c, h, w)
        return torch.stack([(heat.sum(2) * torch.arange(w)).sum(-1), (heat.sum(3) * torch.arange(h)).sum(-1)], -1)

    return Net(forward, heat=nn.Conv2d(3, 4, 3, padding=1)), (2, 3, 7, 9)


def keypoints() -> Made:
    """Positions of maxima, as whole numbers (Xiao et al., 2018)."""

    def forward(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        heat = net.heat(x).flatten(2)
        scores, places = torch.max(heat, 2, keepdim=True)
        points = torch.cat([places % 9, torch.div(places, 9, rounding_mode="floor")], 2).float()
        return points * (scores > 0).float(), scores

    return Net(forward, heat=nn.Conv2d(3, 4, 3, padding=1)), (2, 3, 7, 9)


def yolo() -> Made:
    """Boxes decoded from offsets, in place, and the best of them."""

    def forward(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        y = net.head(net.stem(x))
        n, _, h, w = y.shape
        y = y.view(n, 2, 7, h, w).permute(0, 1, 3, 4, 2).contiguous().sigmoid()
        rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        grid = torch.stack((columns, rows), 2).view(1, 1, h, w, 2).float()
        anchors = torch.tensor([[10.0, 13.0], [16.0, 30.0]]).view(1, 2, 1, 1, 2)
        boxes = y.clone()
        boxes[..., 0:2] = (y[..., 0:2] * 2 - 0.5 + grid) * 8
        boxes[..., 2:4] = (y[..., 2:4] * 2) ** 2 * anchors
        boxes = boxes.view(n, -1, 7)
        scores = boxes[..., 4:5] * boxes[..., 5:]
        best, _ = scores.amax(-1).topk(4)
        return boxes, best

    return Net(forward, stem=conv_bn(3, 8, stride=2, activation=nn.SiLU()), head=nn.Conv2d(8, 14, 1)), (1, 3, 10, 12)


def ssd() -> Made:
    """Scaled features, boxes from priors, corners clipped."""

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.boxes, self.classes = conv_bn(3, 8, stride=2), nn.Conv2d(8, 4, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
            self.scale = nn.Parameter(torch.full((8,), 2.0))
            self.register_buffer("priors", torch.rand(20, 4) + 0.1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.stem(x)
            x = x / x.pow(2).sum(1, keepdim=True).sqrt().clamp(min=1e-6) * self.scale.view(1, -1, 1, 1)
            boxes = self.boxes(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4)
            priors = self.get_buffer("priors")
            centres, sizes = priors[:, :2] + boxes[..., :2] * 0.1 * priors[:, 2:], priors[:, 2:] * torch.exp(boxes[..., 2:] * 0.2)
            corners = torch.cat([centres - sizes / 2, centres + sizes / 2], -1).clamp(0, 1)
            return corners, self.classes(x).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 3).softmax(-1)

    return Head(), (1, 3, 8, 10)


def centernet() -> Made:
    """Peaks of a heat map by max pooling and a comparison, then the best, gathered."""

    def forward(net: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        x = net.stem(x)
        heat, sizes = net.heat(x).sigmoid(), net.sizes(x)
        heat = heat * (F.max_pool2d(heat, 3, 1, 1) == heat).float()
        scores, places = heat.flatten(1).topk(5)
        places = places % (heat.shape[2] * heat.shape[3])
        chosen = sizes.flatten(2).permute(0, 2, 1).gather(1, places.unsqueeze(2).expand(-1, -1, 2))
        return scores, chosen

    return Net(forward, stem=conv_bn(3, 6), heat=nn.Conv2d(6, 2, 1), sizes=nn.Conv2d(6, 2, 1)), (1, 3, 8, 7)


# ---- geometry and the rest ----


def spatial_transformer() -> Made:
    def forward(net: Any, x: Tensor) -> Tensor:
        theta = net.localise(x).view(-1, 2, 3) * 0.1 + torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
        return net.body(F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False))

    localise = nn.Sequential(nn.Conv2d(1, 4, 5), nn.MaxPool2d(2, 2), nn.ReLU(True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 6))
    return Net(forward, localise=localise, body=conv_bn(1, 4)), (2, 1, 9, 11)


def optical_flow() -> Made:
    """Warping by a flow, and a cost volume of shifted products (Sun et al., 2018)."""

    def forward(net: Any, x: Tensor) -> Tensor:
        first, second = net.features(x[:, :3]), net.features(x[:, 3:])
        h, w = first.shape[2:]
        costs = [(first * torch.roll(second, (dy, dx), (2, 3))).mean(1, keepdim=True) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        flow = net.flow(torch.cat(costs, 1))
        rows, columns = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
        grid = torch.stack([columns, rows], -1) + flow.permute(0, 2, 3, 1) * 0.1
        return F.grid_sample(second, grid, mode="bilinear", padding_mode="border", align_corners=True)

    return Net(forward, features=conv_bn(3, 4), flow=nn.Conv2d(9, 2, 3, padding=1)), (1, 6, 8, 9)


def involution() -> Made:
    """Kernels computed from the input, applied to unfolded windows (Li et al., 2021)."""

    def forward(net: Any, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        weight = net.span(net.reduce(x)).view(n, 2, 9, h, w).unsqueeze(2)
        windows = F.unfold(x, 3, padding=1).view(n, 2, c // 2, 9, h, w)
        return (weight * windows).sum(3).view(n, c, h, w)

    return Net(forward, reduce=conv_bn(8, 4, 1), span=nn.Conv2d(4, 18, 1)), (1, 8, 7, 6)


def masked() -> Made:
    """Masks, thresholds and choices between branches."""

    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.stem(x)
        x = x.masked_fill(x < 0.1, -1e4)
        y = torch.where(x > 0.5, x.flip(3), 2 ** x.clamp(max=3))
        return F.threshold(y, 0.2, 0.0) + torch.log1p(y.abs()) + torch.erf(y) - y.std((2, 3), keepdim=True) + y.cumsum(1)[:, :1]

    return Net(forward, stem=conv_bn(3, 6)), (1, 3, 7, 9)


def mlp_mixer() -> Made:
    def forward(net: Any, x: Tensor) -> Tensor:
        x = net.patches(x).flatten(2).transpose(1, 2)
        x = x + net.tokens(net.norm(x).transpose(1, 2)).transpose(1, 2)
        return net.fc((x + net.channels(x)).mean(1))

    tokens, channels = (nn.Sequential(nn.Linear(n, 10), nn.GELU("tanh"), nn.Linear(10, n)) for n in (6, 8))
    return Net(forward, patches=nn.Conv2d(3, 8, 4, 4), norm=nn.LayerNorm(8), tokens=tokens, channels=channels, fc=nn.Linear(8, 3)), (2, 3, 8, 12)


def vlad() -> Made:
    """NetVLAD: residuals to soft clusters, normalised twice (Arandjelovic et al., 2016)."""

    class Vlad(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.assign, self.centres = conv_bn(3, 6), nn.Conv2d(6, 4, 1), nn.Parameter(torch.randn(4, 6))

        def forward(self, x: Tensor) -> Tensor:
            x = F.normalize(self.features(x), p=2, dim=1)
            soft = self.assign(x).flatten(2).softmax(1)
            flat = x.flatten(2)
            vlad = torch.zeros([x.shape[0], 4, 6], dtype=x.dtype)
            for k in range(4):
                residual = (flat - self.centres[k].view(1, 6, 1)) * soft[:, k].unsqueeze(1)
                vlad[:, k] = residual.sum(-1)
            return F.normalize(F.normalize(vlad, p=2, dim=2).flatten(1), p=2, dim=1)

    return Vlad(), (1, 3, 7, 5)


KINDS: dict[str, Callable[[], Made]] = {
    made.__name__: made
    for made in (
        *(mobile_vit, non_local, bilinear_cnn, botnet, vit_head, unet, dcgan, style_transfer, super_resolution, bicubic_residual),
        *(audio, wavenet, crnn, gru_video, eca, temporal_shift, convnext, group_norm_resnet, cbam, senet, shufflenet, efficientnet),
        *(inception, densenet, hrnet, aspp, repvgg, octave_blur, arcface, siamese, soft_argmax, keypoints, yolo, ssd, centernet),
        *(spatial_transformer, optical_flow, involution, masked, mlp_mixer, vlad),
    )
}
"""Name: what makes the network."""


def make(name: str) -> tuple[nn.Module, Tensor]:
    """One of the networks, and an input for it."""
    torch.manual_seed(1)
    module, shape = KINDS[name]()
    return settle(module), torch.randn(shape)
