// Runs a plan (src/anybit/models/plan.py) on packed weights: one call, one ThreadPool::run, for a whole step.
//
// Every rank walks the same list of steps; ranks meet only where one needs what another wrote.  Which steps those are is found
// once, when the engine is built (engine_program.cc), from how each step divides its buffers:
//
//   share   columns in panels of 16, as matmul() divides its outputs where it deals none out
//   rows    tokens (several tokens only)
//   own     each rank has a private copy and computes all of it: for one token, norms and RoPE cost less than a barrier
//   all     reads everything, whoever wrote it
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "generic/dispatch.hpp"
#include "generic/kv_cache.hpp"
#include "generic/matmul.hpp"
#include "generic/sampling.hpp"
#include "generic/thread_pool.hpp"
#include "generic/vector_ops.hpp"

namespace anybit {

enum class OpKind : int { embedding, rms_norm, linear, rope, attention, glu, add, softcap, last, hadamard, gather, scatter };
inline constexpr int kOpKinds = 12;
inline constexpr int kPanel = 16;  // columns that matmul() does not divide

// One operator of the plan.  Only the fields its kind uses are set; `inputs` and `output` index EngineConfig::widths, -1 is ids.
struct EngineOp {
  OpKind kind = OpKind::add;
  std::vector<int> inputs;
  int output = 0;
  WeightPtr weight;            // embedding, linear
  const Kept* kept = nullptr;  // linear: the weight's, or equal ones of another weight; set by Engine
  std::vector<float> vector;   // rms_norm: gain; linear: bias, or empty; hadamard: the small matrix, then signs or nothing;
                               // gather: the input of each output; scatter: the output of each input
  bool exact = true;           // linear: activations as they are, else as EngineConfig::act
  float input_scale = 0.0f;    // linear: of all its inputs where it is known beforehand, else 0
  bool accumulate = false;     // linear
  float factor = 1.0f;         // embedding, rope, scatter
  float eps = 0.0f, offset = 0.0f;                 // rms_norm
  int heads = 1, kv_heads = 1, layer = 0, window = 0;  // rms_norm, rope, attention
  float scale = 1.0f, softcap = 0.0f;              // attention; softcap: the cap
  int table = 0;                                   // rope: index of EngineConfig::tables
  Glu glu = Glu::silu;
  HadamardShape rotation{1, 1, false};             // hadamard
};

struct EngineConfig {
  std::vector<int> widths;  // of the buffers
  int logits = 0;           // index of the buffer that leaves the engine
  std::vector<EngineOp> ops;
  std::vector<std::vector<float>> tables;  // inverse frequencies
  int layers = 0, kv_heads = 0, head_dim = 0, max_positions = 0;
  CacheType cache = CacheType::fp16;
  ActSpec act;
  int chunk = 256;  // most tokens of one step; longer prompts take several
  bool may_be_alone = false;  // one thread computes what is too little to share
};

struct OpTime {
  std::string kind;
  double microseconds = 0;
  std::int64_t calls = 0;
};

// One thing every rank does between two possible barriers.
struct Step {
  enum class Kind : int { op, prepare, store, collect };
  Kind kind = Kind::op;
  int op = 0;
  bool barrier = false;      // meet first
  bool many = false;         // rows of the chunk, else one row
  std::array<bool, 3> own{};  // the inputs are this rank's copies
  bool own_output = false;
  bool by_columns = false;   // elementwise over several rows: split columns, not rows
  int slot = 0;              // which Activations
  int buffer = 0;            // prepare
  bool dealt = false;        // linear: columns go to whoever is free
  ActSpec spec;              // prepare
};
using Program = std::vector<Step>;

// The three ways a chunk can end: logits of the last token, of all, or none (more chunks follow).
enum class Ending : int { last, all, none };
Program build_program(const EngineConfig& config, int threads, bool many, Ending ending);

class Engine {
 public:
  // Throws std::invalid_argument where widths, weights or attributes contradict each other.
  Engine(EngineConfig config, std::shared_ptr<ThreadPool> pool);

  // Appends `ids` to the sequence.  Writes the logits of the last token to `logits` [vocab], or of all tokens [n][vocab] where
  // `all`.  Throws std::out_of_range for an id outside the vocabulary and std::length_error beyond max_positions.
  void forward(std::span<const std::int32_t> ids, bool all, float* logits);

  // forward() and the choice of the next token in one call.  The random number's counter is the position after `ids`.
  int next(std::span<const std::int32_t> ids, const SamplingOptions& options, std::span<const std::int32_t> history);

  int position() const { return position_; }
  void truncate(int length);  // 0 <= length <= position()
  void reset();               // truncate(0), and the cache's memory is given back
  int vocab() const { return vocab_; }
  int threads() const { return pool_->size(); }
  int ranks() const { return ranks_; }  // threads that took part in the last step
  std::size_t cache_bytes() const { return cache_.bytes(); }
  std::size_t weight_bytes() const;
  const char* isa() const { return isa_; }

  // Times by kind of operator as rank 0 sees them, `wait` being barriers; collected while enabled.
  void enable_profile(bool on);
  std::vector<OpTime> profile() const;

 private:
  void check() const;
  void share_kept();
  void allocate();
  void grow_rotations(int positions);
  void run_chunk(const Program& program, std::span<const std::int32_t> ids, float* logits);
  void run_step(Team& team, const Step& step);
  void run_op(Team& team, const Step& step);
  void run_elementwise(Team& team, const Step& step);
  void run_rope(Team& team, const Step& step);
  void attend_one(Team& team, const Step& step);
  void attend_many(Team& team, const Step& step);
  void store_many(Team& team, const Step& step);
  void collect(Team& team, const Step& step);
  Attention attention_problem(const Team& team, const Step& step, int head) const;
  float* partial(int rank, int head) const;
  float* at(const Team& team, int buffer, bool own) const {
    const auto b = static_cast<std::size_t>(buffer);
    return own ? private_[static_cast<std::size_t>(team.rank)][b] : shared_[b];
  }
  const EngineOp& op_of(const Step& step) const { return config_.ops[static_cast<std::size_t>(step.op)]; }
  int width(int buffer) const { return config_.widths[static_cast<std::size_t>(buffer)]; }

  EngineConfig config_;
  std::shared_ptr<ThreadPool> pool_;
  const VectorOps* ops_;
  const char* isa_ = active_isa().name;  // of the products when it was made
  KvCache cache_;
  Sampler sampler_;
  int vocab_ = 0, position_ = 0;
  int ranks_;  // all before the first step
  std::size_t product_bytes_ = 0;  // of weights that a token is multiplied by

  Program one_, many_last_, many_all_, many_none_;
  std::array<Activations, 2> activations_;
  // [rank][slot]: what prepare() gave that rank; a cache line a rank, written every few microseconds
  struct alignas(64) Inputs {
    std::array<const Activations*, 2> slot{};
  };
  std::vector<Inputs> inputs_;

  std::shared_ptr<std::byte> memory_;
  std::vector<float*> shared_;                // [buffer]
  std::vector<std::vector<float*>> private_;  // [rank][buffer]
  std::vector<float*> scratch_;               // [rank]
  mutable std::vector<float> partials_;       // [rank][kv head][group * (2 + DP)]
  std::size_t partial_stride_ = 0;
  std::vector<float> logits_;

  struct Rotation {
    int table;
    float factor;
    std::vector<float> cos, sin;  // [positions][half]
  };
  std::vector<Rotation> rotations_;
  std::vector<int> rotation_of_;  // [op]
  int rotation_positions_ = 0;

  // of the chunk being run
  std::span<const std::int32_t> ids_;
  int rows_ = 0;
  std::unique_ptr<Ticket[]> tickets_;  // [op]: the next task of attention, or of a product's last columns

  bool profiling_ = false;
  std::array<double, kOpKinds + 2> spent_{};  // by OpKind, then prepare, wait
  std::array<std::int64_t, kOpKinds + 2> calls_{};
};

}  // namespace anybit
