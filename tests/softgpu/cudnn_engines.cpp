// The engines of the cuDNN stand-in: what each takes, costs and notes; and plans, built by an
// engine's configuration or from a text.
//
// Mode A lists, best first as far as it knows:
//   7  is offered, but cannot be built;
//   2  f32 only: rounds its inputs and says so;
//   1  wants a workspace, which it overwrites; gradients of it are noted as not deterministic, and differ from run to run;
//   0  wants nothing. Mode B has it alone; the fallback list has it with another knob, and slow.
// Gradients of weights in f32 from narrower inputs are known to the fallback list alone: it does
// not split their sums. The same engines run what is compiled at run time: there is no library of
// other ones here.
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "cudnn.h"

extern "C" size_t cudnnGetVersion();

namespace softcudnn {

namespace {

constexpr int64_t UNBUILDABLE = 7, ROUNDING = 2, SPLIT = 1, PLAIN = 0;
constexpr int64_t KNOB = 4, FALLBACK = 5;

bool is_deterministic(const Program& program, Engine engine) {
    return engine.index != SPLIT || program.problem.direction == Direction::Forward;
}

struct Verdict {
    Status status = Success;
    const char* reason = "";
};

Verdict verdict(const Program& program) {
    const Problem& p = program.problem;
    const auto refused = [&](const char* what) { return refuses(program, what); };
    if (refused("all")) return {NotSupported, "all is refused"};
    if (program.compiled && refused("nvrtc"))
        return {RuntimePrerequisiteMissing, "compiler.load()"};
    if (program.fused && (p.c % 8 || p.k % 8))
        return {NotSupported, "fusion with channels that are no multiples of 8"};
    if (program.fused && refused("fused")) return {NotSupported, "fused graphs are refused"};
    if (p.accumulate && refused("beta")) return {NotSupported, "beta is refused"};
    if (program.wide() && p.accumulate && !accepts("widebeta"))
        return {NotSupported, "no engine adds to gradients of another type"};
    if (p.direction == Direction::BackwardWeight && p.w_type != FLOAT && refused("narrowdw")) {
        return {NotSupported, "gradients of weights in less than f32 are refused"};
    }
    return {};
}

// As cuDNN tells it: a line on the engine, then reasons from the inmost call outwards.
Status reject(Engine engine, Verdict why) {
    const char* name = why.status == NotSupported ? "" : "_RUNTIME_PREREQUISITE_MISSING";
    return say(
        why.status,
        "{\"engineId\":%d,\"smVersion\":900,\"knobChoices\":{\"CUDNN_KNOB_TYPE_TILE_SIZE\":%d}}\n"
        "Warning: CUDNN_STATUS_NOT_SUPPORTED%s; Reason: %s\nWarning: CUDNN_STATUS_NOT_SUPPORTED%s; "
        "Reason: finalize_internal()\n",
        int(engine.index), int(engine.knob), name, why.reason, name);
}

Status build_from_configuration(Descriptor& plan) {
    const Descriptor& configuration = plan.part(401);
    plan.program = configuration.program;
    plan.engine = configuration.engine;
    const Program& program = *plan.program;
    if (const char* ms = getenv("SOFTCUDNN_BUILD_MS"))
        std::this_thread::sleep_for(std::chrono::milliseconds(atol(ms)));
    if (plan.engine.index == UNBUILDABLE)
        return reject(plan.engine, {NotSupported, "engine 7 never runs"});
    if (refuses(program, "build")) return say(InternalError, "plan.finalize_internal()");
    if (refuses(program, "oom"))
        return say(DeviceAllocationFailed, "cudaMalloc(&buffer, bytes) != cudaSuccess");
    const Verdict why = verdict(program);
    if (why.status) return reject(plan.engine, why);
    // NOTE: cuDNN compiles for a configuration once, and fails at a second plan of the same
    // descriptor.
    if (program.compiled && (refuses(program, "compile") || configuration.spent)) {
        return say(CompilationFailed,
                   "Encountered runtime kernel compilation failure at: compilationResult != "
                   "NVRTC_SUCCESS");
    }
    configuration.spent = true;
    count(&Counts::plans);
    return Success;
}

// Everything that a plan's text says, as numbers in one order.
template <class Visit>
void each_number(Descriptor& plan, Program& program, Visit visit) {
    const auto as_number = [&](auto& value) {
        int64_t number = int64_t(value);
        visit(number);
        value = std::decay_t<decltype(value)>(number);
    };
    Problem& p = program.problem;
    as_number(plan.engine.index), as_number(plan.engine.knob);
    as_number(p.direction);
    for (size_t* size : {&p.n, &p.c, &p.h, &p.w, &p.k, &p.r, &p.s, &p.p, &p.q, &p.stride, &p.pad})
        as_number(*size);
    for (Data* type : {&p.x_type, &p.w_type, &p.y_type, &p.bias_type}) as_number(*type);
    for (bool* flag : {&p.accumulate, &p.bias, &p.residual, &p.relu, &p.keeps_nan})
        as_number(*flag);
    for (bool* flag : {&program.fused, &program.compiled}) as_number(*flag);
    for (Operand* o : {&program.x, &program.w, &program.y, &program.bias, &program.residual}) {
        as_number(o->id), as_number(o->alignment);
    }
}

const std::string TEXT = "{\"cudnnVersion\": ", NUMBERS = ", \"plan\": [",
                  KERNEL = ", \"cubin\": \"";

// In the place of a compiled kernel.
std::string kernel_of(const Program& program) {
    return program.compiled ? std::string(64, 'A') : "";
}

// A version that is another one is told; a kernel that is another one is not.
Status build_from_json(Descriptor& plan) {
    count(&Counts::plans_json);
    if (!plan.values.count(400))
        return say(BadParam, "a plan from a text without a handle: cuDNN dies of it");
    const auto bytes = plan.all<char>(405);
    const std::string text(bytes.begin(), bytes.end());
    if (text.compare(0, TEXT.size(), TEXT) != 0) return say(BadParam, "!d.IsObject()");
    char* at;
    const size_t version = strtoull(text.c_str() + TEXT.size(), &at, 10);
    if (version != cudnnGetVersion())
        return say(SublibraryVersionMismatch, "version != cudnnGetVersion()");
    const auto skip = [&](const std::string& part) {
        const bool there = strncmp(at, part.c_str(), part.size()) == 0;
        at += there ? part.size() : 0;
        return there;
    };
    bool whole = skip(NUMBERS);
    auto program = std::make_shared<Program>();
    each_number(plan, *program, [&](int64_t& number) {
        number = strtoll(at, &at, 10);
        whole = whole && (skip(",") || skip("]"));
    });
    whole = whole && skip(KERNEL);
    plan.damaged = !skip(kernel_of(*program) + "\"}");
    if (!whole || text.back() != '}') return say(BadParam, "!json_object.HasMember(key)");
    program->refused = refused_here();
    plan.program = program;
    const Verdict why = verdict(*program);
    return why.status ? reject(plan.engine, why) : Success;
}

}  // namespace

std::string Engine::tag() const { return std::to_string(index) + ":2=" + std::to_string(knob); }

std::vector<Engine> engines(const Program& program, int mode) {
    constexpr int B = 1, A = 3;
    if (const Verdict why = verdict(program); why.status) {
        reject({PLAIN, KNOB}, why);
        return {};
    }
    if (mode != B && mode != A) return {{PLAIN, FALLBACK}};
    if (program.wide()) return {};
    if (mode == B) return {{PLAIN, KNOB}};
    std::vector<Engine> found{{UNBUILDABLE, 0}};
    if (program.problem.x_type == FLOAT) found.push_back({ROUNDING, KNOB});
    found.insert(found.end(), {{SPLIT, KNOB}, {PLAIN, KNOB}});
    return found;
}

std::vector<int> numerical_notes(const Program& program, Engine engine) {
    constexpr int TENSOR_CORE = 0, DOWN_CONVERT_INPUTS = 1, NONDETERMINISTIC = 4;
    if (rounds_inputs(engine)) return {TENSOR_CORE, DOWN_CONVERT_INPUTS};
    return is_deterministic(program, engine) ? std::vector<int>{}
                                             : std::vector<int>{NONDETERMINISTIC};
}

std::vector<int> behavior_notes(const Program& program, Engine) {
    constexpr int RUNTIME_COMPILATION = 0;
    return program.compiled ? std::vector<int>{RUNTIME_COMPILATION} : std::vector<int>{};
}

bool rounds_inputs(Engine engine) { return engine.index == ROUNDING; }

size_t workspace_of(const Program& program, Engine engine) {
    return engine.index == SPLIT ? 1000 + 8 * program.problem.k : 0;
}

double microseconds(const Program& program, Engine engine) {
    const Problem& p = program.problem;
    const double macs = double(p.n * p.p * p.q) * double(p.k * p.r * p.s * p.c);
    // A slow device: what the host adds between two runs counts for little beside.
    const double launch = 2000, macs_per_microsecond = 1e4;
    const auto factor = [&] {
        if (program.wide()) return 10.0;
        if (rounds_inputs(engine)) return 0.5;
        if (engine.index == SPLIT) return 1.0;
        if (engine.knob == FALLBACK) return 2.0;
        switch (p.direction) {
            case Direction::Forward: return 0.98;      // hardly faster than the first of the list
            case Direction::BackwardData: return 0.7;  // the list is wrong
            default: return 1.3;
        }
    };
    return factor() * (launch + macs / macs_per_microsecond);
}

double cut(const Program& program, Engine engine) {
    // NOTE: not the same in two processes either: they would agree on bits that a GPU does not
    // promise.
    static std::atomic<size_t> runs{size_t(getpid())};
    if (!is_deterministic(program, engine)) return double(1 + runs++ * 37 % 97) / 98;
    if (engine.index == PLAIN) return engine.knob == FALLBACK ? 0.25 : 0;
    return engine.index == SPLIT ? 0.5 : 0.75;
}

Status build(Descriptor& plan) {
    const bool by_configuration = plan.values.count(401), by_text = plan.values.count(405);
    if (by_configuration == by_text)
        return say(BadParam, "a plan has an engine configuration or a text");
    return by_text ? build_from_json(plan) : build_from_configuration(plan);
}

std::string json_of(const Descriptor& plan) {
    std::string text = TEXT + std::to_string(cudnnGetVersion()) + NUMBERS;
    Descriptor copy = plan;
    Program program = *plan.program;
    each_number(copy, program, [&](int64_t number) { text += std::to_string(number) + ","; });
    text.back() = ']';
    return text + KERNEL + kernel_of(program) + "\"}";
}

}  // namespace softcudnn
