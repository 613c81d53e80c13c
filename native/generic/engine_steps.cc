// What one rank does in each step.
#include <algorithm>
#include <cstring>

#include "generic/engine.hpp"

namespace anybit {

void Engine::run_step(Team& team, const Step& step) {
  switch (step.kind) {
    case Step::Kind::op: return run_op(team, step);
    case Step::Kind::store: return store_many(team, step);
    case Step::Kind::collect: return collect(team, step);
    case Step::Kind::prepare: {
      const int w = width(step.buffer);
      const auto slot = static_cast<std::size_t>(step.slot);
      inputs_[static_cast<std::size_t>(team.rank)].slot[slot] = &prepare(
          team, activations_[slot], at(team, step.buffer, step.own[0]), step.many ? rows_ : 1, w, w, step.spec);
      return;
    }
  }
}

void Engine::run_op(Team& team, const Step& step) {
  const EngineOp& op = op_of(step);
  const std::int64_t rows = step.many ? rows_ : 1;
  const Share mine = step.many && !step.own_output ? share(team, rows) : Share{0, rows};
  const int out_width = width(op.output);
  float* out = at(team, op.output, step.own_output);
  switch (op.kind) {
    case OpKind::embedding:
      for (std::int64_t r = mine.begin; r < mine.end; ++r) {
        embedding_row(*op.weight, ids_[static_cast<std::size_t>(r)], op.factor, out + r * out_width);
      }
      return;
    case OpKind::rms_norm: {
      const float* x = at(team, op.inputs[0], step.own[0]);
      const std::int64_t head = out_width / op.heads;
      for (std::int64_t r = mine.begin * op.heads; r < mine.end * op.heads; ++r) {
        ops_->rms_norm(x + r * head, op.vector.data(), op.offset, op.eps, out + r * head, static_cast<std::size_t>(head));
      }
      return;
    }
    case OpKind::hadamard: {
      const float* x = at(team, op.inputs[0], step.own[0]);
      const auto small = static_cast<std::size_t>(op.rotation.order) * static_cast<std::size_t>(op.rotation.order);
      const float* signs = op.vector.size() > small ? op.vector.data() + small : nullptr;
      for (std::int64_t r = mine.begin; r < mine.end; ++r) {
        ops_->hadamard(op.rotation, op.vector.data(), signs, x + r * out_width, out + r * out_width, static_cast<std::size_t>(out_width));
      }
      return;
    }
    case OpKind::gather:
    case OpKind::scatter: {
      const std::int64_t in_width = width(op.inputs[0]);
      const float* x = at(team, op.inputs[0], step.own[0]);
      for (std::int64_t r = mine.begin; r < mine.end; ++r) {
        const float* from = x + r * in_width;
        float* to = out + r * out_width;
        if (op.kind == OpKind::gather) {
          for (int i = 0; i < out_width; ++i) to[i] = from[static_cast<int>(op.vector[static_cast<std::size_t>(i)])];
        } else {
          std::fill(to, to + out_width, 0.0f);
          for (std::int64_t i = 0; i < in_width; ++i) to[static_cast<int>(op.vector[static_cast<std::size_t>(i)])] = from[i] * op.factor;
        }
      }
      return;
    }
    case OpKind::linear: {
      const auto& inputs = inputs_[static_cast<std::size_t>(team.rank)];
      Epilogue epilogue;
      epilogue.bias = op.vector.empty() ? nullptr : op.vector.data();
      epilogue.addend = op.accumulate ? at(team, op.output, step.own[1]) : nullptr;
      matmul(team, *op.weight, *inputs.slot[static_cast<std::size_t>(step.slot)], out, out_width, epilogue,
             step.dealt ? &tickets_[static_cast<std::size_t>(step.op)] : nullptr);
      return;
    }
    case OpKind::rope: return run_rope(team, step);
    case OpKind::attention: return step.many ? attend_many(team, step) : attend_one(team, step);
    case OpKind::glu:
    case OpKind::add:
    case OpKind::softcap: return run_elementwise(team, step);
    case OpKind::last: {
      const float* x = at(team, op.inputs[0], step.own[0]);
      if (step.many && step.own_output) x += (rows_ - 1) * static_cast<std::int64_t>(out_width);
      const Share copied = step.own_output ? Share{0, 1} : mine;
      std::memcpy(out + copied.begin * out_width, x + copied.begin * out_width,
                  static_cast<std::size_t>((copied.end - copied.begin) * out_width) * sizeof(float));
      return;
    }
  }
}

void Engine::run_elementwise(Team& team, const Step& step) {
  const EngineOp& op = op_of(step);
  const std::int64_t w = width(op.output), rows = step.many ? rows_ : 1;
  Share r{0, rows}, c{0, w};
  if (!step.own_output) {
    if (step.by_columns) {
      c = share(team, w, kPanel);
    } else {
      r = share(team, rows);
    }
  }
  const std::size_t n = static_cast<std::size_t>(c.end - c.begin);
  if (n == 0) return;
  float* out = at(team, op.output, step.own_output);
  const float* a = at(team, op.inputs[0], step.own[0]);
  const float* b = op.inputs.size() > 1 ? at(team, op.inputs[1], step.own[1]) : nullptr;
  for (std::int64_t i = r.begin * w + c.begin; i < r.end * w; i += w) {
    if (op.kind == OpKind::glu) {
      ops_->glu(op.glu, a + i, b + i, out + i, n);
    } else if (op.kind == OpKind::add) {
      ops_->add(a + i, b + i, out + i, n);
    } else {
      ops_->softcap(a + i, op.softcap, out + i, n);
    }
  }
}

void Engine::run_rope(Team& team, const Step& step) {
  const EngineOp& op = op_of(step);
  const std::int64_t w = width(op.output);
  const Rotation& rotation = rotations_[static_cast<std::size_t>(rotation_of_[static_cast<std::size_t>(step.op)])];
  const auto half = static_cast<std::int64_t>(config_.tables[static_cast<std::size_t>(op.table)].size());
  const Share mine = step.many ? share(team, rows_) : Share{0, 1};
  const float* x = at(team, op.inputs[0], step.own[0]);
  float* out = at(team, op.output, step.own_output);
  for (std::int64_t r = mine.begin; r < mine.end; ++r) {
    if (out != x) std::memcpy(out + r * w, x + r * w, static_cast<std::size_t>(w) * sizeof(float));
    const auto at_position = static_cast<std::size_t>((position_ + r) * half);
    ops_->rope(out + r * w, op.heads, static_cast<int>(w / op.heads), static_cast<int>(half),
               rotation.cos.data() + at_position, rotation.sin.data() + at_position);
  }
}

Attention Engine::attention_problem(const Team& team, const Step& step, int head) const {
  const EngineOp& op = op_of(step);
  const int group = op.heads / op.kv_heads, d = config_.head_dim;
  Attention p{};
  p.q = at(team, op.inputs[0], step.own[0]) + static_cast<std::ptrdiff_t>(head) * group * d;
  p.q_stride = p.out_stride = static_cast<std::size_t>(op.heads) * static_cast<std::size_t>(d);
  p.out = at(team, op.output, false) + static_cast<std::ptrdiff_t>(head) * group * d;
  p.tokens = 1;
  p.group = group;
  p.head_dim = d;
  p.position = position_;
  p.window = op.window;
  p.scale = op.scale;
  p.softcap = op.softcap;
  p.type = cache_.type();
  p.tiles = cache_.tiles();
  p.tile_offset = cache_.offset(op.layer, head);
  p.scratch = scratch_[static_cast<std::size_t>(team.rank)];
  return p;
}

float* Engine::partial(int rank, int head) const {
  return partials_.data() + partial_stride_ * static_cast<std::size_t>(rank * config_.kv_heads + head);
}

namespace {

// The tiles one token sees, and how (kv head, tile) pairs are dealt out: rank r takes pairs [first(r), first(r + 1)).
struct Deal {
  int tile_begin, tiles, heads, ranks;
  Deal(int position, int window, int heads_, int ranks_) : heads(heads_), ranks(ranks_) {
    tile_begin = window > 0 ? std::max(0, position - window + 1) / kTilePositions : 0;
    tiles = position / kTilePositions + 1 - tile_begin;
  }
  std::int64_t first(int rank) const {
    return static_cast<std::int64_t>(heads) * tiles * rank / ranks;
  }
  // The tiles [begin, end), counted from tile_begin, of a head that a rank takes.
  Share of(int rank, int head) const {
    const std::int64_t base = static_cast<std::int64_t>(head) * tiles;
    const std::int64_t begin = std::clamp<std::int64_t>(first(rank) - base, 0, tiles);
    const std::int64_t end = std::clamp<std::int64_t>(first(rank + 1) - base, 0, tiles);
    return {begin, end};
  }
};

}  // namespace

void Engine::attend_one(Team& team, const Step& step) {
  const EngineOp& op = op_of(step);
  const Deal deal(position_, op.window, op.kv_heads, pool_->size());
  const std::ptrdiff_t d = config_.head_dim;
  const float* k = at(team, op.inputs[1], step.own[1]);
  const float* v = at(team, op.inputs[2], step.own[2]);
  for (int rank = team.rank; rank < deal.ranks; rank += team.size) {  // parts of those that sit out, too
    for (int head = 0; head < op.kv_heads; ++head) {
      const Share mine = deal.of(rank, head);
      if (mine.begin == mine.end) continue;
      if (mine.end == deal.tiles) {
        ops_->cache_store(cache_.at(position_, op.layer, head), cache_.type(), config_.head_dim,
                          position_ % kTilePositions, k + head * d, v + head * d);
      }
      Attention p = attention_problem(team, step, head);
      p.tile_begin = deal.tile_begin + static_cast<int>(mine.begin);
      p.tile_end = deal.tile_begin + static_cast<int>(mine.end);
      if (mine.begin == 0 && mine.end == deal.tiles) {
        ops_->attention(p);
      } else {
        float* max = partial(rank, head);
        ops_->attention_partial(p, max, max + p.group, max + 2 * p.group);
      }
    }
  }
}

void Engine::collect(Team& team, const Step& step) {
  const EngineOp& op = op_of(step);
  const Deal deal(position_, op.window, op.kv_heads, pool_->size());
  const int group = op.heads / op.kv_heads, d = config_.head_dim, dp = padded_dim(d);
  const float* whole = at(team, op.output, false);
  float* out = at(team, op.output, true);
  for (int head = 0; head < op.kv_heads; ++head) {
    const std::ptrdiff_t columns = static_cast<std::ptrdiff_t>(head) * group * d;
    int first = -1, last = -1;
    for (int r = 0; r < deal.ranks; ++r) {
      const Share s = deal.of(r, head);
      if (s.begin == s.end) continue;
      if (first < 0) first = r;
      last = r;
    }
    if (first == last) {
      std::memcpy(out + columns, whole + columns, static_cast<std::size_t>(group * d) * sizeof(float));
      continue;
    }
    for (int g = 0; g < group; ++g) {
      float max = partial(first, head)[g], sum = 0;
      for (int r = first + 1; r <= last; ++r) {
        if (deal.of(r, head).begin != deal.of(r, head).end) max = std::max(max, partial(r, head)[g]);
      }
      float* row = out + columns + static_cast<std::ptrdiff_t>(g) * d;
      std::fill(row, row + d, 0.0f);
      for (int r = first; r <= last; ++r) {
        if (deal.of(r, head).begin == deal.of(r, head).end) continue;
        const float* part = partial(r, head);
        const float difference = part[g] - max;
        float weight;
        ops_->exp(&difference, &weight, 1);
        sum += weight * part[group + g];
        const float* acc = part + 2 * group + static_cast<std::ptrdiff_t>(g) * dp;
        for (int i = 0; i < d; ++i) row[i] += weight * acc[i];
      }
      ops_->scale(row, 1.0f / sum, row, static_cast<std::size_t>(d));
    }
  }
}

void Engine::store_many(Team& team, const Step& step) {
  const EngineOp& op = op_of(step);
  const Share mine = share(team, rows_);
  const std::ptrdiff_t d = config_.head_dim, w = op.kv_heads * d;
  const float* k = at(team, op.inputs[1], false);
  const float* v = at(team, op.inputs[2], false);
  for (std::int64_t r = mine.begin; r < mine.end; ++r) {
    const int position = position_ + static_cast<int>(r);
    for (int head = 0; head < op.kv_heads; ++head) {
      ops_->cache_store(cache_.at(position, op.layer, head), cache_.type(), config_.head_dim, position % kTilePositions,
                        k + r * w + head * d, v + r * w + head * d);
    }
  }
}

void Engine::attend_many(Team& team, const Step& step) {
  const EngineOp& op = op_of(step);
  const int group = op.heads / op.kv_heads;
  // Query blocks as large as the scratch allows, smaller where there would be too few tasks to share out evenly.
  int block = std::max(1, kAttentionRows / group);
  while (block > 8 && op.kv_heads * ((rows_ + block - 1) / block) < 4 * pool_->size()) block /= 2;
  const int blocks = (rows_ + block - 1) / block, tasks = blocks * op.kv_heads;
  Ticket& ticket = tickets_[static_cast<std::size_t>(step.op)];
  for (int task; (task = ticket.fetch_add(1, std::memory_order_relaxed)) < tasks;) {
    // Late blocks see more keys: hand them out first.
    const int first = (blocks - 1 - task / op.kv_heads) * block, head = task % op.kv_heads;
    Attention p = attention_problem(team, step, head);
    p.tokens = std::min(block, rows_ - first);
    p.position = position_ + first;
    p.q += static_cast<std::size_t>(first) * p.q_stride;
    p.out += static_cast<std::size_t>(first) * p.out_stride;
    p.tile_begin = op.window > 0 ? std::max(0, p.position - op.window + 1) / kTilePositions : 0;
    p.tile_end = (p.position + p.tokens - 1) / kTilePositions + 1;
    ops_->attention(p);
  }
}

}  // namespace anybit
