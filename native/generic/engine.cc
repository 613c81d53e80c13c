#include "generic/engine.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <set>
#include <stdexcept>

#include "generic/vector_dispatch.hpp"

namespace anybit {
namespace {

constexpr int kPrepare = kOpKinds, kWait = kOpKinds + 1;
constexpr const char* kNames[] = {"embedding", "rms_norm", "linear", "rope", "attention", "glu",
                                  "add",       "softcap",  "last",   "hadamard", "gather", "scatter", "prepare", "wait"};
constexpr int kRotationBlock = 256;
constexpr std::size_t kWorthSharing = 3 << 19;  // bytes of weights times tokens, from which on barriers cost less than a second thread saves

void need(bool condition, const std::string& message) {
  if (!condition) throw std::invalid_argument(message);
}

}  // namespace

Engine::Engine(EngineConfig config, std::shared_ptr<ThreadPool> pool)
    : config_(std::move(config)),
      pool_(std::move(pool)),
      ops_(&vector_ops()),
      cache_(config_.layers, config_.kv_heads, config_.head_dim, config_.cache),
      sampler_(*ops_),
      ranks_(pool_->size()) {
  check();
  share_kept();
  vocab_ = width(config_.logits);
  for (const EngineOp& op : config_.ops) {
    if (op.kind == OpKind::linear) product_bytes_ += op.weight->nbytes();
  }
  const int threads = pool_->size();
  one_ = build_program(config_, threads, false, Ending::last);
  many_last_ = build_program(config_, threads, true, Ending::last);
  many_all_ = build_program(config_, threads, true, Ending::all);
  many_none_ = build_program(config_, threads, true, Ending::none);
  allocate();
}

// One input serves all that keep the same columns.
void Engine::share_kept() {
  std::vector<const Kept*> known;
  for (EngineOp& op : config_.ops) {
    if (op.kind != OpKind::linear || !op.weight->kept) continue;
    const Kept* own = op.weight->kept.get();
    const auto same = [own](const Kept* other) { return other->kind == own->kind && other->columns == own->columns; };
    const auto found = std::find_if(known.begin(), known.end(), same);
    op.kept = found == known.end() ? own : *found;
    if (found == known.end()) known.push_back(own);
  }
}

void Engine::check() const {
  const int buffers = static_cast<int>(config_.widths.size());
  need(config_.logits >= 0 && config_.logits < buffers, "the plan has no buffer for logits");
  need(config_.layers >= 0 && config_.kv_heads >= 1 && config_.head_dim >= 1 && config_.max_positions >= 1,
       "the plan's cache sizes must be positive");
  need(config_.chunk >= 1, "the chunk must be at least 1 token");
  for (std::size_t i = 0; i < config_.ops.size(); ++i) {
    const EngineOp& op = config_.ops[i];
    const std::string where = "operator " + std::to_string(i) + " (" + kNames[static_cast<int>(op.kind)] + "): ";
    const auto in = [&](std::size_t k) { return op.inputs.size() > k && op.inputs[k] >= 0 ? width(op.inputs[k]) : 0; };
    need(op.output >= 0 && op.output < buffers, where + "its output is not a buffer");
    for (const int b : op.inputs) {
      need(b < buffers && (b >= 0 || op.kind == OpKind::embedding), where + "an input is not a buffer");
    }
    const int out = width(op.output);
    switch (op.kind) {
      case OpKind::embedding:
        need(op.weight && op.weight->k == out && !op.weight->kept, where + "the table's width is not the buffer's");
        break;
      case OpKind::linear:
        need(op.inputs.size() == 1 && op.weight && op.weight->k == in(0) && op.weight->n == out,
             where + "the weight's shape is not [output, input]");
        need(op.vector.empty() || static_cast<int>(op.vector.size()) == out, where + "the bias has a wrong length");
        break;
      case OpKind::rms_norm:
        need(op.inputs.size() == 1 && in(0) == out && op.heads >= 1 && out % op.heads == 0 &&
                 static_cast<int>(op.vector.size()) == out / op.heads,
             where + "the gain's length is not width / heads");
        break;
      case OpKind::rope: {
        need(op.table >= 0 && op.table < static_cast<int>(config_.tables.size()), where + "unknown table");
        const auto half = static_cast<int>(config_.tables[static_cast<std::size_t>(op.table)].size());
        need(op.inputs.size() == 1 && in(0) == out && op.heads >= 1 && out % op.heads == 0 && 2 * half <= out / op.heads,
             where + "the table is wider than a head");
        break;
      }
      case OpKind::attention:
        need(op.inputs.size() == 3 && op.kv_heads == config_.kv_heads && op.heads % op.kv_heads == 0 &&
                 in(0) == op.heads * config_.head_dim && out == in(0) && in(1) == op.kv_heads * config_.head_dim &&
                 in(2) == in(1) && op.layer >= 0 && op.layer < config_.layers && op.window >= 0,
             where + "heads, widths or layer do not fit the cache");
        break;
      case OpKind::glu:
      case OpKind::add:
        need(op.inputs.size() == 2 && in(0) == out && in(1) == out, where + "widths differ");
        break;
      case OpKind::softcap:
        need(op.inputs.size() == 1 && in(0) == out && op.softcap > 0, where + "widths differ or the cap is not positive");
        break;
      case OpKind::hadamard: {
        const HadamardShape& h = op.rotation;
        const auto small = static_cast<std::size_t>(std::max(h.order, 0)) * static_cast<std::size_t>(std::max(h.order, 0));
        need(op.inputs.size() == 1 && in(0) == out && h.order >= 1 && h.order <= 128 && h.block >= h.order && h.block % h.order == 0 &&
                 out % h.block == 0 && (op.vector.size() == small || op.vector.size() == small + static_cast<std::size_t>(out)),
             where + "its blocks do not divide the buffer, or the vector is not a small matrix and signs");
        break;
      }
      case OpKind::gather:
      case OpKind::scatter: {
        const bool gathers = op.kind == OpKind::gather;
        const int most = gathers ? in(0) : out, count = gathers ? out : in(0);
        need(op.inputs.size() == 1 && op.inputs[0] != op.output && static_cast<int>(op.vector.size()) == count,
             where + "needs a place for every " + (gathers ? "output" : "input"));
        for (const float place : op.vector) need(place >= 0 && place < static_cast<float>(most), where + "a place lies outside the buffer");
        break;
      }
      case OpKind::last:
        need(op.inputs.size() == 1 && in(0) == out, where + "widths differ");
        break;
    }
  }
}

void Engine::allocate() {
  const int threads = pool_->size();
  const auto buffers = config_.widths.size();
  const auto padded = [](std::size_t n) { return (n + 15) / 16 * 16; };
  int group = 1;
  std::int64_t widest = 1;
  double stretch = 1.0;
  std::int64_t kept = 0;
  for (const EngineOp& op : config_.ops) {
    if (op.kind == OpKind::attention) group = std::max(group, op.heads / op.kv_heads);
    if (op.kind != OpKind::linear) continue;
    widest = std::max(widest, op.weight->k);
    stretch = std::max(stretch, static_cast<double>(op.weight->slots) / static_cast<double>(op.weight->k));
    if (op.kept) kept = std::max(kept, op.kept->count());
  }
  const std::size_t scratch = padded(attention_scratch(config_.head_dim, std::max(kAttentionRows, group)));
  std::size_t floats = scratch * static_cast<std::size_t>(threads);
  for (std::size_t b = 0; b < buffers; ++b) {
    const std::size_t w = padded(static_cast<std::size_t>(config_.widths[b]));
    const bool outside = static_cast<int>(b) == config_.logits;
    if (!outside) floats += w * static_cast<std::size_t>(config_.chunk + threads);
  }
  memory_ = arena_allocate(floats * sizeof(float));
  float* next = reinterpret_cast<float*>(memory_.get());
  const auto take = [&](std::size_t n) { return std::exchange(next, next + n); };
  shared_.assign(buffers, nullptr);
  private_.assign(static_cast<std::size_t>(threads), std::vector<float*>(buffers, nullptr));
  for (std::size_t b = 0; b < buffers; ++b) {
    if (static_cast<int>(b) == config_.logits) continue;
    const std::size_t w = padded(static_cast<std::size_t>(config_.widths[b]));
    shared_[b] = take(w * static_cast<std::size_t>(config_.chunk));
    for (auto& rank : private_) rank[b] = take(w);
  }
  for (int r = 0; r < threads; ++r) scratch_.push_back(take(scratch));
  inputs_.resize(static_cast<std::size_t>(threads));
  for (Activations& a : activations_) a.reserve(config_.chunk, widest, threads, stretch, kept);

  partial_stride_ = static_cast<std::size_t>(group) * static_cast<std::size_t>(padded_dim(config_.head_dim) + kLanePad);
  partials_.resize(partial_stride_ * static_cast<std::size_t>(threads * config_.kv_heads));
  tickets_ = std::make_unique<Ticket[]>(config_.ops.size());
  logits_.resize(static_cast<std::size_t>(vocab_));

  rotation_of_.assign(config_.ops.size(), -1);
  for (std::size_t i = 0; i < config_.ops.size(); ++i) {
    const EngineOp& op = config_.ops[i];
    if (op.kind != OpKind::rope) continue;
    const auto same = [&](const Rotation& r) { return r.table == op.table && r.factor == op.factor; };
    const auto found = std::find_if(rotations_.begin(), rotations_.end(), same);
    rotation_of_[i] = static_cast<int>(found - rotations_.begin());
    if (found == rotations_.end()) rotations_.push_back({op.table, op.factor, {}, {}});
  }
}

void Engine::grow_rotations(int positions) {
  if (positions <= rotation_positions_) return;
  const int end = (positions + kRotationBlock - 1) / kRotationBlock * kRotationBlock;
  for (Rotation& r : rotations_) {
    const auto& table = config_.tables[static_cast<std::size_t>(r.table)];
    for (int p = rotation_positions_; p < end; ++p) {
      for (const float frequency : table) {
        // The angle is rounded to float32, as every published implementation does; the functions are then exact to half an ulp.
        const double angle = static_cast<double>(static_cast<float>(p) * frequency);
        r.cos.push_back(static_cast<float>(std::cos(angle)) * r.factor);
        r.sin.push_back(static_cast<float>(std::sin(angle)) * r.factor);
      }
    }
  }
  rotation_positions_ = end;
}

std::size_t Engine::weight_bytes() const {
  std::set<const Weight*> seen;
  std::size_t total = 0;
  for (const EngineOp& op : config_.ops) {
    if (op.weight && seen.insert(op.weight.get()).second) total += op.weight->nbytes();
  }
  return total;
}

void Engine::truncate(int length) {
  if (length < 0 || length > position_) {
    throw std::out_of_range("cannot truncate to " + std::to_string(length) + " tokens; the sequence holds " +
                            std::to_string(position_));
  }
  position_ = length;
}

void Engine::reset() {
  position_ = 0;
  cache_.clear();
}

void Engine::forward(std::span<const std::int32_t> ids, bool all, float* logits) {
  if (ids.empty()) throw std::invalid_argument("no tokens to run");
  for (const EngineOp& op : config_.ops) {
    if (op.kind != OpKind::embedding) continue;
    for (const std::int32_t id : ids) {
      if (id < 0 || id >= op.weight->n) {
        throw std::out_of_range("token id " + std::to_string(id) + " is outside the vocabulary of " +
                                std::to_string(op.weight->n));
      }
    }
  }
  const std::size_t room = static_cast<std::size_t>(config_.max_positions - position_);
  if (ids.size() > room) {
    throw std::length_error(std::to_string(ids.size()) + " more tokens do not fit: " + std::to_string(position_) + " of " +
                            std::to_string(config_.max_positions) + " positions are used");
  }
  const int end = position_ + static_cast<int>(ids.size());
  cache_.reserve(end);
  grow_rotations(end);
  const auto chunk = static_cast<std::size_t>(config_.chunk);
  while (!ids.empty()) {
    const auto part = ids.first(std::min(chunk, ids.size()));
    ids = ids.subspan(part.size());
    const bool final = ids.empty();
    // A single token costs little; without a `none` program of its own it runs to the end and is overwritten.
    const Program& program = part.size() == 1 ? one_ : all ? many_all_ : final ? many_last_ : many_none_;
    run_chunk(program, part, logits);
    position_ += static_cast<int>(part.size());
    if (all) logits += part.size() * static_cast<std::size_t>(vocab_);
  }
}

int Engine::next(std::span<const std::int32_t> ids, const SamplingOptions& options,
                 std::span<const std::int32_t> history) {
  forward(ids, false, logits_.data());
  return sampler_.sample(logits_, options, history, static_cast<std::uint64_t>(position_));
}

void Engine::run_chunk(const Program& program, std::span<const std::int32_t> ids, float* logits) {
  shared_[static_cast<std::size_t>(config_.logits)] = logits;
  ids_ = ids;
  rows_ = static_cast<int>(ids.size());
  for (std::size_t op = 0; op < config_.ops.size(); ++op) tickets_[op].store(0, std::memory_order_relaxed);
  const bool alone = config_.may_be_alone && ids.size() * product_bytes_ < kWorthSharing;
  const auto on_all = [&](auto&& job) {
    const auto noted = [&](Team& team) {
      if (team.rank == 0) ranks_ = team.size;
      job(team);
    };
    Team self{0, 1, nullptr};
    if (alone) noted(self);
    else pool_->run(noted);
  };
  if (!profiling_) {
    on_all([&](Team& team) {
      for (const Step& step : program) {
        if (step.barrier) team.barrier();
        run_step(team, step);
      }
    });
    return;
  }
  on_all([&](Team& team) {
    using Clock = std::chrono::steady_clock;
    auto then = Clock::now();
    const auto lap = [&](int kind, bool counted = true) {
      if (team.rank != 0) return;
      const auto now = Clock::now();
      spent_[static_cast<std::size_t>(kind)] += std::chrono::duration<double, std::micro>(now - then).count();
      calls_[static_cast<std::size_t>(kind)] += counted;
      then = now;
    };
    for (const Step& step : program) {
      if (step.barrier) {
        team.barrier();
        lap(kWait);
      }
      run_step(team, step);
      const bool prepares = step.kind == Step::Kind::prepare;
      lap(prepares ? kPrepare : static_cast<int>(op_of(step).kind), prepares || step.kind == Step::Kind::op);
    }
    team.barrier();
    lap(kWait);
  });
}

void Engine::enable_profile(bool on) {
  profiling_ = on;
  if (on) {
    spent_.fill(0);
    calls_.fill(0);
  }
}

std::vector<OpTime> Engine::profile() const {
  std::vector<OpTime> out;
  for (std::size_t i = 0; i < spent_.size(); ++i) {
    if (calls_[i] > 0) out.push_back({kNames[i], spent_[i], calls_[i]});
  }
  return out;
}

}  // namespace anybit
