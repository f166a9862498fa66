"""ncnn with its fp16 storage and arithmetic on: what it does by default on processors that have it."""

from typing import Any

from tools.bench_peers.adapters import ncnn_net


class Adapter(ncnn_net.Adapter):
    def set_precision(self, option: Any) -> None:
        option.use_fp16_packed = option.use_fp16_storage = option.use_fp16_arithmetic = True
        option.use_bf16_storage = False
