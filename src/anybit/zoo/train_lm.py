"""Train `anybit-tiny`, the bundled Llama-architecture story model, from plain text.

    python -m anybit.zoo.train_lm --text books_train.txt.gz --valid books_valid.txt --out DIR

The text holds one paragraph a line and a line `<|endoftext|>` between books.  Three deterministic stages, all seeded:
a byte-level BPE tokenizer, a token file, and the training itself (Muon for the matrices, AdamW for the rest;
warm-up, constant, linear decay; half-length windows before the decay, full ones in it).  Where the processor multiplies
bfloat16 (`--precision auto`), activations and gradients of the matrices are bfloat16 and weights stay float32.  The decay phase draws
`--story-share` of its windows from children's books, because that is what the model is asked to write; `--init` goes on from
finished weights, with a `--tale-share` of windows from single tales and a `--composed-share` from the stories of `story_grammar`,
many of them from a first word on, so that it learns to begin a story, to keep to it and to end it.  Every
`--save-every` steps a checkpoint is renamed into place, from which the same command resumes: the data order depends on
seed and step alone, so a resumed run sees the same batches.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anybit.zoo.story_grammar import compose
from anybit.zoo.story_text import END, for_children, read_books, tales, tokenize


@dataclass(frozen=True)
class Config:
    """Sizes of the network; the names follow Hugging Face's LlamaConfig."""

    vocab_size: int = 4096
    hidden_size: int = 256
    intermediate_size: int = 768
    num_hidden_layers: int = 6
    num_attention_heads: int = 8
    num_key_value_heads: int = 4
    head_dim: int = 32
    max_position_embeddings: int = 512
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5


MIXTURE_FILE = "mixture.json"
"""In a run that goes on from other weights: after which step, and the shares of the two kinds of whole stories."""
TALE_OPENINGS = 0.4
"""Of the windows from tales, the share that starts where a tale does."""
COMPOSED = 20_000
"""Composed stories to draw windows from; those with higher seeds are never seen."""


class RMSNorm(nn.Module):
    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class Attention(nn.Module):
    def __init__(self, c: Config) -> None:
        super().__init__()
        self.c = c
        q, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        self.q_proj = nn.Linear(c.hidden_size, q, bias=False)
        self.k_proj = nn.Linear(c.hidden_size, kv, bias=False)
        self.v_proj = nn.Linear(c.hidden_size, kv, bias=False)
        self.o_proj = nn.Linear(q, c.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        b, t, _ = x.shape
        c = self.c
        q = rotate(self.q_proj(x).view(b, t, c.num_attention_heads, c.head_dim).transpose(1, 2), cos, sin)
        k = rotate(self.k_proj(x).view(b, t, c.num_key_value_heads, c.head_dim).transpose(1, 2), cos, sin)
        v = self.v_proj(x).view(b, t, c.num_key_value_heads, c.head_dim).transpose(1, 2)
        repeat = c.num_attention_heads // c.num_key_value_heads
        k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(b, t, -1))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding in the half-split order of Hugging Face's Llama; x is [batch, heads, time, head_dim]."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


class MLP(nn.Module):
    def __init__(self, c: Config) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.up_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.down_proj = nn.Linear(c.intermediate_size, c.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c: Config) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.self_attn = Attention(c)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.mlp = MLP(c)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """The trained network; parameter names equal LlamaForCausalLM's below the prefix `model.`, output tied to the embedding."""

    def __init__(self, c: Config) -> None:
        super().__init__()
        self.c = c
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList([Layer(c) for _ in range(c.num_hidden_layers)])
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        angle = torch.outer(
            torch.arange(c.max_position_embeddings).float(),
            c.rope_theta ** (-torch.arange(0, c.head_dim, 2).float() / c.head_dim),
        )
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                scale = 0.02 if "embed" in name else p.shape[1] ** -0.5
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    scale /= math.sqrt(2 * c.num_hidden_layers)
                nn.init.normal_(p, std=scale)

    def forward(self, ids: Tensor) -> Tensor:
        """ids [batch, time] int64 -> logits [batch, time, vocab] float32."""
        t = ids.shape[1]
        x = self.embed_tokens(ids)
        cos, sin = self.get_buffer("cos")[:t], self.get_buffer("sin")[:t]
        for layer in self.layers:
            x = layer(x, cos, sin)
        return F.linear(self.norm(x), self.embed_tokens.weight)


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised by Newton-Schulz (Jordan et al., 2024), updates scaled to AdamW's root mean square.

    torch.optim.Muon always iterates in bfloat16, which CPUs without bfloat16 units emulate: 13 s a step against 0.2 s in
    float32.  Hence `dtype` is the caller's choice.
    """

    def __init__(
        self,
        params: list[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                buf = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buf.lerp_(p.grad, 1 - group["momentum"])
                update = newton_schulz(p.grad.lerp(buf, group["momentum"]), self.dtype)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * 0.2 * math.sqrt(max(p.shape)))


def newton_schulz(g: Tensor, dtype: torch.dtype) -> Tensor:
    """The nearest (semi-)orthogonal matrix to g [rows, cols], by five quintic iterations in `dtype`; in g's own dtype."""
    x = (g / (g.norm() + 1e-7)).to(dtype)
    wide = x if g.shape[0] <= g.shape[1] else x.T.contiguous()
    for _ in range(5):
        a = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(a, a, a, beta=-4.7750, alpha=2.0315), wide, beta=3.4445)
    return (wide if g.shape[0] <= g.shape[1] else wide.T).to(g.dtype)


def train_tokenizer(books: list[str], vocab_size: int, out: Path) -> None:
    """A byte-level BPE tokenizer in Hugging Face's layout, with `<|endoftext|>` as id 0 for begin and end."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tok.train_from_iterator(
        (b[i : i + 100_000] for b in books for i in range(0, len(b), 100_000)),
        trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
        ),
    )
    tok.post_processor = processors.TemplateProcessing(single=f"{END} $A", special_tokens=[(END, 0)])
    tok.save(str(out / "tokenizer.json"))
    write_json(
        out / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END, "eos_token": END, "model_max_length": 512},
    )


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def batch_at(
    step: int, ids: np.ndarray, story_starts: np.ndarray, share: float, seed: int, shape: tuple[int, int]
) -> Tensor:
    """The windows of one step [batch, time + 1]; a pure function of seed and step."""
    rng = np.random.default_rng((seed, step))
    batch, time_ = shape
    starts = rng.integers(0, len(ids) - time_ - 1, batch)
    pick = rng.random(batch) < share
    starts[pick] = story_starts[rng.integers(0, len(story_starts), int(pick.sum()))]
    return windows(ids, starts, time_)


def tales_at(step: int, ids: np.ndarray, openings: float, seed: int, shape: tuple[int, int], stream: int = 1) -> Tensor:
    """Windows [batch, time + 1] of the tales `ids`, a share `openings` of them from the beginning of a tale."""
    rng = np.random.default_rng((seed, step, stream))
    batch, time_ = shape
    starts = rng.integers(0, len(ids) - time_ - 1, batch)
    first = np.flatnonzero(ids[: len(ids) - time_ - 1] == 0)
    pick = rng.random(batch) < openings
    starts[pick] = first[rng.integers(0, len(first), int(pick.sum()))]
    return windows(ids, starts, time_)


def windows(ids: np.ndarray, starts: np.ndarray, length: int) -> Tensor:
    """[len(starts), length + 1] int64: the tokens from each start on."""
    return torch.from_numpy(ids[starts[:, None] + np.arange(length + 1)].astype(np.int64))


def learning_rate(step: int, args: argparse.Namespace) -> float:
    """Factor on the peak rate: linear warm-up, constant, linear decay to zero over the last `decay` steps."""
    return min(1.0, (step + 1) / args.warmup, max(0.0, (args.steps - step) / args.decay))


@torch.no_grad()
def evaluate(model: Llama, ids: np.ndarray, windows: int = 40) -> float:
    """Mean negative log-likelihood (nats a token) on evenly spaced full windows."""
    t = model.c.max_position_embeddings
    starts = np.linspace(0, len(ids) - t - 1, windows).astype(int)
    total = 0.0
    for s in starts:
        x = torch.from_numpy(ids[s : s + t + 1].astype(np.int64))
        total += F.cross_entropy(model(x[None, :-1])[0], x[1:]).item()
    return total / len(starts)


def export(model: Llama, out: Path) -> None:
    """Write config.json and bf16 model.safetensors in Hugging Face's Llama layout."""
    from safetensors.torch import save_file

    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "attention_bias": False,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "torch_dtype": "bfloat16",
        **asdict(model.c),
    }
    write_json(out / "config.json", config)
    state = {f"model.{k}": v.detach().to(torch.bfloat16).contiguous() for k, v in model.state_dict().items()}
    save_file(state, str(out / "model.safetensors.tmp"), metadata={"format": "pt"})
    (out / "model.safetensors.tmp").replace(out / "model.safetensors")


def load_weights(model: Llama, file: Path) -> None:
    """The weights that `export` wrote, into the model."""
    from safetensors.torch import load_file

    model.load_state_dict({k.removeprefix("model."): v.float() for k, v in load_file(file).items()})


def steps_of(log: Path) -> int:
    """The last step of a training log."""
    return int(json.loads(log.read_text(encoding="utf-8").splitlines()[-1])["step"])


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """bfloat16 if asked for, or if `auto` finds units for it; else float32."""
    if precision == "auto":
        has_units = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
        precision = "bf16" if has_units else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def check(args: argparse.Namespace) -> None:
    """ValueError for shares of whole stories that are none, are more than everything, or have no weights to go on from."""
    shares = (args.tale_share, args.composed_share)
    if not (min(shares) >= 0 and sum(shares) <= 1):
        raise ValueError(f"--tale-share and --composed-share are not negative and at most 1 together; got {shares}")
    if any(shares) and args.init is None:
        raise ValueError("--tale-share and --composed-share go on from finished weights; name them with --init")


def train(args: argparse.Namespace) -> None:
    check(args)
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    config = Config(num_hidden_layers=args.layers)
    tokens = args.out / "tokens.npz"
    if not tokens.exists():
        books = read_books(args.text)
        if args.init is None:
            train_tokenizer(books, config.vocab_size, args.out)
        else:
            for name in ("tokenizer.json", "tokenizer_config.json", "train_log.jsonl"):
                shutil.copyfile(args.init / name, args.out / name)
        tokenizer = args.out / "tokenizer.json"
        ids, book = tokenize(books, tokenizer)
        story = np.array([for_children(b) for b in books])[book]
        tale, _ = tokenize([t for b in books for t in tales(b)], tokenizer)
        valid, _ = tokenize(read_books(args.valid), tokenizer)
        np.savez(tokens, ids=ids, story=story, tale=tale, valid=valid)
    data = np.load(tokens)
    ids, story, tale, valid = (data[k] for k in ("ids", "story", "tale", "valid"))
    composed = np.zeros(0, np.uint16)
    if args.composed_share:
        composed, _ = tokenize([compose(i) for i in range(COMPOSED)], args.out / "tokenizer.json")
    t = config.max_position_embeddings
    story_starts = np.flatnonzero(story[: len(ids) - t - 1])
    print(
        f"{len(ids):,} tokens, {len(story_starts) / len(ids):.0%} from children's books; "
        f"{len(tale):,} in {(tale == 0).sum():,} tales; {len(composed):,} composed; validation {len(valid):,}",
        flush=True,
    )

    device = torch.device(args.device)
    model = Llama(config).to(device)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    matrices = [p for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.dim() != 2 or "embed" in n]
    dtype = compute_dtype(args.precision, device)
    muon = Muon(matrices, lr=args.lr, dtype=dtype)
    adam = torch.optim.AdamW(rest, lr=args.lr, betas=(0.9, 0.95), weight_decay=0.0)
    optimizers: list[torch.optim.Optimizer] = [muon, adam]

    def next_token_loss(window: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            logits = model(window[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1).float(), window[:, 1:].flatten())

    loss_of = torch.compile(next_token_loss, dynamic=False) if args.compile else next_token_loss

    state_file, step, before = args.out / "state.pt", 0, 0
    if args.init is not None:
        before = steps_of(args.init / "train_log.jsonl")
        load_weights(model, args.init / "model.safetensors")
        if args.composed_share:
            write_json(
                args.out / MIXTURE_FILE,
                {"after": before, "tale_share": args.tale_share, "composed_share": args.composed_share},
            )
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        for o, s in zip(optimizers, state["optimizers"], strict=True):
            o.load_state_dict(s)
        step = state["step"]
        print(f"resumed at step {step}", flush=True)
    log = (args.out / "train_log.jsonl").open("a", encoding="utf-8")
    began, first = time.time(), step
    while step < args.steps:
        factor = learning_rate(step, args)
        decaying = step >= args.steps - args.decay
        shape = (args.batch, t) if decaying else (2 * args.batch, t // 2)
        told, made = round(args.tale_share * shape[0]), round(args.composed_share * shape[0])
        share = args.story_share * decaying
        parts = [batch_at(step, ids, story_starts, share, args.seed, (shape[0] - told - made, shape[1]))]
        for stream, (source, rows) in enumerate(((tale, told), (composed, made)), start=1):
            if rows:
                parts.append(tales_at(step, source, TALE_OPENINGS, args.seed, (rows, shape[1]), stream))
        window = torch.cat(parts).to(device)
        loss = loss_of(window)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for o in optimizers:
            for group in o.param_groups:
                group["lr"] = args.lr * factor
            o.step()
            o.zero_grad(set_to_none=True)
        step += 1
        row: dict[str, float] = {"step": before + step, "loss": round(loss.item(), 5), "lr": round(args.lr * factor, 6)}
        if step % args.save_every == 0 or step == args.steps:
            row["valid"] = round(evaluate(model, valid), 5)
            state = {"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers], "step": step}
            torch.save(state, args.out / "state.tmp")
            (args.out / "state.tmp").replace(state_file)
            export(model, args.out)
        log.write(json.dumps(row) + "\n")
        log.flush()
        if step % 10 == 0 or "valid" in row:
            rate = (step - first) / (time.time() - began)
            left = (args.steps - step) / rate / 60
            print(f"{row}  {rate * args.batch * t:,.0f} tokens/s, {left:.0f} min left", flush=True)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--text", type=Path, required=True)
    p.add_argument("--valid", type=Path, required=True)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--layers", type=int, default=6)
    p.add_argument("--steps", type=int, default=2400)
    p.add_argument("--batch", type=int, default=8, help="windows of 512 tokens a step")
    p.add_argument("--lr", type=float, default=4e-3)
    p.add_argument("--warmup", type=int, default=60)
    p.add_argument("--decay", type=int, default=700, help="steps of the final linear decay")
    p.add_argument("--story-share", type=float, default=0.7, help="share of children's books in the decay phase")
    p.add_argument("--init", type=Path, help="go on from the weights of this directory, with its tokenizer and its log")
    p.add_argument("--tale-share", type=float, default=0.0, help="share of windows from single tales (with --init)")
    p.add_argument(
        "--composed-share", type=float, default=0.0, help="share of windows from composed stories (with --init)"
    )
    p.add_argument("--save-every", type=int, default=100)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--device", default="cpu")
    p.add_argument("--precision", choices=["auto", "bf16", "fp32"], default="auto", help="of the matrix products")
    p.add_argument(
        "--compile", action="store_true", help="torch.compile the loss: about 1.8 times the speed after a minute"
    )
    train(p.parse_args())


if __name__ == "__main__":
    main()
