// From a plan to steps: who computes what, and where ranks must meet.
#include <map>
#include <set>
#include <stdexcept>
#include <string>

#include "generic/engine.hpp"

namespace anybit {
namespace {

enum class Access { share, rows, all };

constexpr std::size_t kFewestDealtBytes = 1 << 20;  // below, dealing costs more than waiting

class Builder {
 public:
  Builder(const EngineConfig& config, int threads, bool many, Ending ending)
      : config_(config), threads_(threads), ending_(ending), buffers_(static_cast<int>(config.widths.size())) {
    const auto n = config.widths.size();
    own_.assign(n, false);
    many_.assign(n, many);
    version_.assign(n, 0);
    chunk_many_ = many;
  }

  Program build() {
    for (int i = 0; i < static_cast<int>(config_.ops.size()); ++i) {
      if (!lower(i)) break;
    }
    return std::move(program_);
  }

 private:
  struct Use {
    bool written = false;
    Access write = Access::all;
    std::set<Access> reads;
  };
  struct Prepared {
    int buffer = -1, version = -1;
    ActSpec spec;
  };

  // Resources beyond the buffers.
  int cache() const { return buffers_; }
  int partials() const { return buffers_ + 1; }

  bool read_conflicts(int resource, Access access) {
    const Use& use = uses_[resource];
    return use.written && (access == Access::all || use.write != access);
  }
  bool write_conflicts(int resource, Access access) {
    const Use& use = uses_[resource];
    if (use.written && (access == Access::all || use.write != access)) return true;
    for (const Access read : use.reads) {
      if (access == Access::all || read != access) return true;
    }
    return false;
  }

  // Declares what the step about to be pushed touches; private copies are nobody else's business.
  void read(Step& step, int resource, Access access) {
    if (resource < buffers_ && own(resource)) return;
    step.barrier |= read_conflicts(resource, access);
    pending_reads_.emplace_back(resource, access);
  }
  void write(Step& step, int resource, Access access) {
    step.barrier |= write_conflicts(resource, access);
    pending_writes_.emplace_back(resource, access);
  }
  void push(Step step) {
    if (step.barrier) uses_.clear();
    for (const auto& [resource, access] : pending_reads_) uses_[resource].reads.insert(access);
    for (const auto& [resource, access] : pending_writes_) {
      uses_[resource].written = true;
      uses_[resource].write = access;
    }
    pending_reads_.clear();
    pending_writes_.clear();
    program_.push_back(step);
  }

  bool own(int buffer) const { return own_[static_cast<std::size_t>(buffer)]; }
  bool many(int buffer) const { return buffer < 0 ? chunk_many_ : many_[static_cast<std::size_t>(buffer)]; }
  void written(int buffer, bool own, bool many) {
    const auto b = static_cast<std::size_t>(buffer);
    own_[b] = own;
    many_[b] = many;
    ++version_[b];
  }

  Step start(int index) const {
    const EngineOp& op = config_.ops[static_cast<std::size_t>(index)];
    Step step;
    step.op = index;
    step.many = many(op.inputs[0]);
    for (std::size_t i = 0; i < op.inputs.size(); ++i) step.own[i] = op.inputs[i] >= 0 && own(op.inputs[i]);
    return step;
  }

  // Everything a rank computes for itself from whole inputs, or by rows where there are several.
  void replicate(int index) {
    const EngineOp& op = config_.ops[static_cast<std::size_t>(index)];
    Step step = start(index);
    const bool own_output = !step.many && op.output != config_.logits;
    if (!step.many && !own_output) throw std::invalid_argument("the logits buffer must be written by a linear operator");
    for (const int input : op.inputs) {
      if (input >= 0) read(step, input, step.many ? Access::rows : Access::all);
    }
    if (!own_output) write(step, op.output, Access::rows);
    step.own_output = own_output;
    push(step);
    written(op.output, own_output, step.many);
  }

  void elementwise(int index) {
    const EngineOp& op = config_.ops[static_cast<std::size_t>(index)];
    Step step = start(index);
    bool all_own = true;
    for (const int input : op.inputs) all_own &= own(input);
    if (all_own && op.output != config_.logits) return replicate(index);
    const Use& first = uses_[op.inputs[0]];
    const bool columns = !step.many || (first.written && first.write == Access::share);
    const Access access = columns ? Access::share : Access::rows;
    for (const int input : op.inputs) read(step, input, access);
    write(step, op.output, access);
    step.by_columns = columns;
    push(step);
    written(op.output, false, step.many);
  }

  // The scale groups of the input: the configured ones, but the weight's own where it pads its groups, and the whole row where
  // that is shorter than a group; or the one scale of all inputs.
  ActSpec input_spec(const EngineOp& op) const {
    ActSpec spec;
    if (!op.exact) spec = config_.act, spec.given = op.input_scale;
    spec.geometry = op.weight->geometry;
    spec.kept = op.kept;
    if (spec.group != 0 && spec.geometry.group != 0) spec.group = spec.geometry.group;
    if (spec.group >= op.weight->k || spec.given > 0.0f) spec.group = 0;
    return spec;
  }

  void linear(int index) {
    const EngineOp& op = config_.ops[static_cast<std::size_t>(index)];
    const int input = op.inputs[0];
    const auto in = static_cast<std::size_t>(input);
    const ActSpec spec = input_spec(op);
    const bool several = many(input);

    int slot = -1;
    for (int s = 0; s < 2; ++s) {
      const Prepared& p = prepared_[s];
      if (p.buffer == input && p.version == version_[in] && p.spec == spec) slot = s;
    }
    if (slot < 0) {
      slot = next_slot_;
      next_slot_ ^= 1;
      Step step;
      step.kind = Step::Kind::prepare;
      step.op = index;
      step.many = several;
      step.buffer = input;
      step.own[0] = own(input);
      step.slot = slot;
      step.spec = spec;
      // prepare() of several rows meets at its beginning itself.  With two slots in turn, every reader of a slot has passed
      // the other slot's barrier before the slot is written again.
      if (several) {
        uses_.clear();
      } else {
        read(step, input, Access::all);
      }
      push(step);
      prepared_[slot] = {input, version_[in], spec};
    }
    Step step = start(index);
    step.slot = slot;
    step.own[1] = op.accumulate && own(op.output);  // each rank adds to its own copy, which is whole
    step.dealt = threads_ > 1 && !several && op.weight->nbytes() >= kFewestDealtBytes;
    read(step, input, Access::all);  // exact activations may be the buffer itself
    write(step, op.output, step.dealt ? Access::all : Access::share);
    push(step);
    written(op.output, false, several);
  }

  void attention(int index) {
    const EngineOp& op = config_.ops[static_cast<std::size_t>(index)];
    Step step = start(index);
    if (step.many) {
      Step store = step;
      store.kind = Step::Kind::store;
      read(store, op.inputs[1], Access::rows);
      read(store, op.inputs[2], Access::rows);
      write(store, cache(), Access::rows);
      push(store);
      read(step, op.inputs[0], Access::all);
      read(step, cache(), Access::all);
      write(step, op.output, Access::all);
      push(step);
      written(op.output, false, true);
      return;
    }
    // One token: a rank takes a range of (kv head, tile) pairs, writes the new key and value itself where its range ends a
    // head, and leaves what is incomplete in `partials`, which each rank then puts together for itself.
    const bool split = threads_ > 1 && op.kv_heads % threads_ != 0;
    for (const int input : op.inputs) read(step, input, Access::all);
    write(step, op.output, Access::all);
    if (split) write(step, partials(), Access::all);
    push(step);
    written(op.output, false, false);
    if (!split) return;
    Step collect = start(index);
    collect.kind = Step::Kind::collect;
    read(collect, partials(), Access::all);
    read(collect, op.output, Access::all);
    push(collect);
    written(op.output, true, false);
  }

  // False where the program ends here.
  bool lower(int index) {
    const EngineOp& op = config_.ops[static_cast<std::size_t>(index)];
    switch (op.kind) {
      case OpKind::embedding:
      case OpKind::rms_norm:
      case OpKind::hadamard:
      case OpKind::gather:
      case OpKind::scatter:
      case OpKind::rope: replicate(index); return true;
      case OpKind::linear: linear(index); return true;
      case OpKind::attention: attention(index); return true;
      case OpKind::glu:
      case OpKind::add:
      case OpKind::softcap: elementwise(index); return true;
      case OpKind::last:
        if (!many(op.inputs[0]) || ending_ == Ending::all) {
          replicate(index);
          return true;
        }
        if (ending_ == Ending::none) return false;
        Step step = start(index);
        read(step, op.inputs[0], Access::all);
        step.own_output = true;
        push(step);
        written(op.output, true, false);
        return true;
    }
    return true;
  }

  const EngineConfig& config_;
  const int threads_;
  const Ending ending_;
  const int buffers_;
  bool chunk_many_ = false;
  Program program_;
  std::vector<bool> own_, many_;
  std::vector<int> version_;
  std::map<int, Use> uses_;
  std::vector<std::pair<int, Access>> pending_reads_, pending_writes_;
  Prepared prepared_[2];
  int next_slot_ = 0;
};

}  // namespace

Program build_program(const EngineConfig& config, int threads, bool many, Ending ending) {
  return Builder(config, threads, many, ending).build();
}

}  // namespace anybit
