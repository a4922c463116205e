// The engines of the cuDNN stand-in: what each takes, costs and notes; and plans, built by an engine's configuration or from a text.
//
// Mode A lists, best first as far as it knows:
//   7  is offered, but cannot be built;
//   2  f32 only: rounds its inputs and says so;
//   1  wants a workspace, which it overwrites; gradients of it are noted as not deterministic, and differ from run to run;
//   0  wants nothing. Mode B has it alone; the fallback list has it with another knob, and slow.
// Gradients of weights in f32 from narrower inputs are known to the fallback list alone: it does not split their sums.
// For fused graphs each of them is compiled at run time.
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

Status build_from_configuration(Descriptor& plan) {
    const Descriptor& configuration = plan.part(401);
    plan.program = configuration.program;
    plan.engine = configuration.engine;
    const Program& program = *plan.program;
    count(&Counts::plans);
    if (const char* ms = getenv("SOFTCUDNN_BUILD_MS")) std::this_thread::sleep_for(std::chrono::milliseconds(atol(ms)));
    if (plan.engine.index == UNBUILDABLE) return say(NotSupported, "engine %d never runs", int(UNBUILDABLE));
    if (refuses(program, "build")) return say(InternalError, "building plan: unexpected exception");
    if (refuses(program, "oom")) return say(DeviceAllocationFailed, "cudaMalloc(&buffer, size) != cudaSuccess: out of memory");
    if (program.fused && refuses(program, "compile")) return say(CompilationFailed, "nvrtcCompileProgram: NVRTC_ERROR_COMPILATION");
    return supports(program);
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
    for (size_t* size : {&p.n, &p.c, &p.h, &p.w, &p.k, &p.r, &p.s, &p.p, &p.q, &p.stride, &p.pad}) as_number(*size);
    for (Data* type : {&p.x_type, &p.w_type, &p.y_type}) as_number(*type);
    for (bool* flag : {&p.accumulate, &p.bias, &p.residual, &p.relu, &p.keeps_nan, &program.fused}) as_number(*flag);
    for (Operand* o : {&program.x, &program.w, &program.y, &program.bias, &program.residual}) {
        as_number(o->id), as_number(o->alignment);
    }
}

std::string head_of_json() { return "{\"cudnn\": " + std::to_string(cudnnGetVersion()) + ", \"plan\": ["; }

Status build_from_json(Descriptor& plan) {
    count(&Counts::plans_json);
    const auto bytes = plan.all<char>(405);
    const std::string text(bytes.begin(), bytes.end()), head = head_of_json();
    if (text.compare(0, 10, head, 0, 10) != 0) return say(BadParam, "the text of a plan is damaged");
    if (text.compare(0, head.size(), head) != 0) return say(SerializationVersionMismatch, "the text of a plan is of another version");
    auto program = std::make_shared<Program>();
    const char* at = text.c_str() + head.size();
    bool whole = true;
    each_number(plan, *program, [&](int64_t& number) {
        char* end;
        number = strtoll(at, &end, 10);
        whole &= end != at && (*end == ',' || *end == ']');
        at = whole ? end + 1 : "";
    });
    if (!whole || strcmp(at, "}") != 0) return say(BadParam, "the text of a plan is damaged");
    program->refused = refused_here();
    plan.program = program;
    return supports(*program);
}

}  // namespace

std::string Engine::tag() const { return std::to_string(index) + ":2=" + std::to_string(knob); }

Status supports(const Program& program) {
    const Problem& p = program.problem;
    if (refuses(program, "all")) return say(NotSupported, "all is refused");
    if (program.fused && (p.c % 8 || p.k % 8)) return say(NotSupported, "fusion with channels that are no multiples of 8");
    if (program.fused && refuses(program, "fused")) return say(NotSupported, "fused graphs are refused");
    if (p.accumulate && refuses(program, "beta")) return say(NotSupported, "beta is refused");
    if (program.wide() && p.accumulate && !accepts("widebeta")) {
        return say(NotSupported, "no engine adds to gradients of another type");
    }
    if (p.direction == Direction::BackwardWeight && p.w_type != FLOAT && refuses(program, "narrowdw")) {
        return say(NotSupported, "gradients of weights in less than f32 are refused");
    }
    return Success;
}

std::vector<Engine> engines(const Program& program, int mode) {
    constexpr int B = 1, A = 3;
    if (program.fused && refuses(program, "nvrtc")) {
        say(NotSupported, "CUDNN_STATUS_NOT_SUPPORTED_RUNTIME_PREREQUISITE_MISSING; Reason: compiler.load()");
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
    return is_deterministic(program, engine) ? std::vector<int>{} : std::vector<int>{NONDETERMINISTIC};
}

std::vector<int> behavior_notes(const Program& program, Engine) {
    constexpr int RUNTIME_COMPILATION = 0;
    return program.fused ? std::vector<int>{RUNTIME_COMPILATION} : std::vector<int>{};
}

bool rounds_inputs(Engine engine) { return engine.index == ROUNDING; }

size_t workspace_of(const Program& program, Engine engine) { return engine.index == SPLIT ? 1000 + 8 * program.problem.k : 0; }

double microseconds(const Program& program, Engine engine) {
    const Problem& p = program.problem;
    const double macs = double(p.n * p.p * p.q) * double(p.k * p.r * p.s * p.c);
    const double launch = 2, macs_per_microsecond = 2e8;
    const auto factor = [&] {
        if (program.wide()) return 10.0;
        if (rounds_inputs(engine)) return 0.5;
        if (engine.index == SPLIT) return 1.0;
        if (engine.knob == FALLBACK) return 2.0;
        switch (p.direction) {
            case Direction::Forward: return 0.98;       // hardly faster than the first of the list
            case Direction::BackwardData: return 0.7;   // the list is wrong
            default: return 1.3;
        }
    };
    return factor() * (launch + macs / macs_per_microsecond);
}

double cut(const Program& program, Engine engine) {
    // NOTE: not the same in two processes either: they would agree on bits that a GPU does not promise.
    static std::atomic<size_t> runs{size_t(getpid())};
    if (!is_deterministic(program, engine)) return double(1 + runs++ % 97) / 98;
    if (engine.index == PLAIN) return engine.knob == FALLBACK ? 0.25 : 0;
    return engine.index == SPLIT ? 0.5 : 0.75;
}

Status build(Descriptor& plan) {
    const bool by_configuration = plan.values.count(401), by_text = plan.values.count(405);
    if (by_configuration == by_text) return say(BadParam, "a plan has an engine configuration or a text");
    return by_text ? build_from_json(plan) : build_from_configuration(plan);
}

std::string json_of(const Descriptor& plan) {
    std::string text = head_of_json();
    Descriptor copy = plan;
    Program program = *plan.program;
    each_number(copy, program, [&](int64_t number) { text += std::to_string(number) + ","; });
    text.back() = ']';
    return text + "}";
}

}  // namespace softcudnn
