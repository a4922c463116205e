// The scheduler. Threads of a block are fibres; a warp runs until all its lanes wait for the block or have ended; then the next
// warp runs. A thread runs until it waits (for its warp or its block) or ends. All 32 lanes must wait at the same place, and all
// warps at the same barrier: everything else is an error, where a GPU would hang or, worse, would not.
//
// A lane that ends hands its stack to the next lane that has not begun, so a kernel without barriers is a plain loop.
#include "block.h"

#include <stdio.h>
#include <stdlib.h>

#include <memory>
#include <vector>

#include "fibre.h"

namespace softgpu {

__thread Here here;

namespace {

constexpr unsigned MOST_THREADS = 1024;
constexpr size_t GUARD = 256, MOST_ARRAYS = 32, ARENA = SHARED_MOST + (MOST_ARRAYS + 1) * 2 * GUARD;
constexpr unsigned char POISON = 0xFF, GUARD_BYTE = 0xA5;

enum State : unsigned char { Ready, AtWarp, AtBarrier, Ended };

struct Thread {
    Fibre* fibre;  // null: has not begun
    State state;
    int line;
    const char* file;
    const char* op;
    uint3 index;
};

struct Array {
    const void* site;
    size_t start, bytes;
    const char* file;
    int line;
};

struct Machine {
    Fibre host;
    std::vector<std::unique_ptr<Fibre>> fibres;
    std::vector<Fibre*> idle;
    Thread threads[MOST_THREADS];
    unsigned count = 0;
    bool descending = false;
    const Launch* launch = nullptr;

    // The running thread, its warp, and how many lanes of the warp came before it in this pass.
    Thread* current = nullptr;
    unsigned warp_start = 0, lanes = 0, pass = 0;
    uint64_t exchange[2][32];
    unsigned parity = 0;
    std::string fault;

    char* arena = nullptr;
    size_t arena_used = 0, dynamic_start = 0;
    std::vector<Array> arrays;

    Machine() { arena = static_cast<char*>(aligned_alloc(128, ARENA)); }
    ~Machine() {
        open(0, ARENA);
        free(arena);
    }

    void open(size_t start, size_t bytes);
    void close(size_t start, size_t bytes);
    size_t take(size_t bytes);
    Thread* next_lane();
    void go(Fibre& from);
    void run_pass();
    void wait(State state, const char* op, const char* file, int line);
    [[noreturn]] void fail(const char* what, const char* file, int line);
    bool run_warp();
    bool run_block();
    void check_guards();
};

Machine& machine() {
    static thread_local std::unique_ptr<Machine> machine(new Machine);
    return *machine;
}
// NOTE: read in every switch; `machine()` would check its initialisation each time.
__thread Machine* m __attribute__((tls_model("initial-exec")));

const char* short_name(const char* file) {
    const char* cut = file;
    for (const char* part : {"/cuda/", "/tests/softgpu/"}) {
        if (const char* found = strstr(file, part)) cut = found + 1;
    }
    return cut;
}

std::string place(const Thread& t) {
    char text[512];
    switch (t.state) {
        case Ended: snprintf(text, sizeof text, "has ended"); break;
        case AtBarrier: snprintf(text, sizeof text, "waits in __syncthreads at %s:%d", short_name(t.file), t.line); break;
        case AtWarp: snprintf(text, sizeof text, "waits in %s at %s:%d", t.op, short_name(t.file), t.line); break;
        case Ready: snprintf(text, sizeof text, "has not begun"); break;
    }
    return text;
}

std::string who(const Machine& m, const Thread& t) {
    const uint3 b = here.block;
    char text[160];
    snprintf(text, sizeof text, "thread %u of block (%u,%u,%u)", unsigned(&t - m.threads), b.x, b.y, b.z);
    return text;
}

bool together(const Thread& a, const Thread& b) {
    // NOTE: `op` tells apart two operations on one line.
    return a.state == b.state && (a.state == Ended || (a.line == b.line && a.file == b.file && a.op == b.op));
}

// Blames the barrier or the warp operation that one of the two waits at.
std::string diverging(const Machine& m, const Thread& a, const Thread& b) {
    const Thread& waits = a.state != Ended ? a : b;
    const Thread& other = &waits == &a ? b : a;
    char text[1600];
    snprintf(text, sizeof text, "%s at %s:%d (%s %s, %s %s)",
             waits.state == AtBarrier ? "diverging barrier" : "incomplete warp operation", short_name(waits.file), waits.line,
             who(m, waits).c_str(), place(waits).c_str(), who(m, other).c_str(), place(other).c_str());
    return text;
}

void fibre_main() {
    for (;;) {
        m->launch->entry->call(m->launch->parameters);
        Thread* done = m->current;
        Fibre* own = done->fibre;
        done->state = Ended;
        done->fibre = nullptr;
        Thread* next = m->next_lane();
        if (next && !next->fibre) {
            next->fibre = own;
            m->current = next;
            here.thread = next->index;
            continue;
        }
        m->idle.push_back(own);
        m->current = next;
        m->go(*own);
    }
}

// The lane after the running one in this pass.
Thread* Machine::next_lane() {
    if (++pass >= lanes) return nullptr;
    return &threads[warp_start + (descending ? lanes - 1 - pass : pass)];
}

// Leaves `from` for the fibre of `current`, or for the scheduler where the pass has ended.
void Machine::go(Fibre& from) {
    Thread* to = current;
    if (!to) return from.switch_to(host);
    here.thread = to->index;
    if (!to->fibre) {
        if (idle.empty()) {
            fibres.emplace_back(new Fibre(fibre_main, fibres.size()));
            idle.push_back(fibres.back().get());
        }
        to->fibre = idle.back();
        idle.pop_back();
    }
    from.switch_to(*to->fibre);
}

void Machine::wait(State state, const char* op, const char* file, int line) {
    Thread* me = current;
    me->state = state;
    me->op = op;
    me->file = file;
    me->line = line;
    current = next_lane();
    go(*me->fibre);
}

void Machine::fail(const char* what, const char* file, int line) {
    char text[1024];
    snprintf(text, sizeof text, "%s at %s:%d (%s)", what, short_name(file), line, who(*this, *current).c_str());
    fault = text;
    current->fibre->switch_to(host);
    abort();
}

// Lets each lane of the warp run until it waits or ends.
void Machine::run_pass() {
    pass = 0;
    current = &threads[warp_start + (descending ? lanes - 1 : 0)];
    go(host);
}

// Runs a warp until it waits for the block or has ended.
bool Machine::run_warp() {
    for (;;) {
        run_pass();
        if (!fault.empty()) return false;
        const Thread& first = threads[warp_start];
        for (unsigned i = 1; i < lanes; ++i) {
            const Thread& t = threads[warp_start + i];
            if (!together(first, t)) {
                fault = diverging(*this, first, t);
                return false;
            }
        }
        if (first.state != AtWarp) return true;
        if (lanes != 32) {
            fault = diverging(*this, first, first);
            return false;
        }
        parity ^= 1;
    }
}

bool Machine::run_block() {
    const uint3 size = here.block_size;
    unsigned i = 0;
    for (unsigned z = 0; z < size.z; ++z) {
        for (unsigned y = 0; y < size.y; ++y) {
            for (unsigned x = 0; x < size.x; ++x) {
                threads[i].fibre = nullptr;
                threads[i].state = Ready;
                threads[i++].index = {x, y, z};
            }
        }
    }
    open(0, arena_used);
    arrays.clear();
    arena_used = 0;
    if (launch->dynamic_bytes) {
        dynamic_start = take(launch->dynamic_bytes);
        arrays.push_back({nullptr, dynamic_start, launch->dynamic_bytes, "dynamic", 0});
    }
    const unsigned warps = (count + 31) / 32;
    for (;;) {
        for (unsigned w = 0; w < warps; ++w) {
            warp_start = 32 * (descending ? warps - 1 - w : w);
            lanes = count - warp_start < 32 ? count - warp_start : 32;
            if (!run_warp()) return false;
        }
        for (unsigned w = 1; w < warps; ++w) {
            if (!together(threads[0], threads[32 * w])) {
                fault = diverging(*this, threads[0], threads[32 * w]);
                return false;
            }
        }
        if (threads[0].state == Ended) break;
    }
    check_guards();
    return fault.empty();
}

// Shared memory: arrays between guards in one arena, full of 0xFF when a block begins.
#ifdef SOFTGPU_ASAN
void Machine::open(size_t start, size_t bytes) { __asan_unpoison_memory_region(arena + start, bytes); }
void Machine::close(size_t start, size_t bytes) { __asan_poison_memory_region(arena + start, bytes); }
void Machine::check_guards() {}
#else
void Machine::open(size_t, size_t) {}
void Machine::close(size_t start, size_t bytes) { memset(arena + start, GUARD_BYTE, bytes); }
void Machine::check_guards() {
    for (const Array& a : arrays) {
        const size_t end = a.start + a.bytes, stop = (end + GUARD + 127) / 128 * 128;
        bool whole = true;
        for (size_t i = a.start - GUARD; i < a.start; ++i) whole &= arena[i] == char(GUARD_BYTE);
        for (size_t i = end; i < stop; ++i) whole &= arena[i] == char(GUARD_BYTE);
        if (whole) continue;
        char text[512];
        snprintf(text, sizeof text, "written outside of the shared array of %zu bytes at %s:%d (block (%u,%u,%u))", a.bytes,
                 short_name(a.file), a.line, here.block.x, here.block.y, here.block.z);
        fault = text;
        return;
    }
}
#endif

// Guard, array, guard: the guard behind one array stands before the next.
size_t Machine::take(size_t bytes) {
    if (arena_used == 0) {
        close(0, GUARD);
        arena_used = GUARD;
    }
    const size_t start = arena_used, stop = (start + bytes + GUARD + 127) / 128 * 128;
    open(start, bytes);
    memset(arena + start, POISON, bytes);
    close(start + bytes, stop - start - bytes);
    arena_used = stop;
    return start;
}

}  // namespace

void barrier(const char* file, int line) { m->wait(AtBarrier, "__syncthreads", file, line); }

unsigned lane() { return unsigned(m->current - m->threads) & 31; }

const uint64_t* exchange(unsigned mask, uint64_t mine, const char* op, const char* file, int line) {
    if (mask != 0xffffffffu) m->fail("warp operation with a partial mask", file, line);
    m->exchange[m->parity][lane()] = mine;
    m->wait(AtWarp, op, file, line);
    return m->exchange[m->parity ^ 1];
}

void* dynamic_shared() {
    if (!m->launch->dynamic_bytes) m->fail("DYNAMIC_SHARED in a launch without dynamic shared memory", "the kernel", 0);
    return m->arena + m->dynamic_start;
}

void* shared_array(const void* site, size_t bytes, const char* file, int line) {
    size_t total = 0;
    for (const Array& a : m->arrays) {
        if (a.site == site) return m->arena + a.start;
        if (a.site) total += a.bytes;
    }
    if (m->arrays.size() == MOST_ARRAYS) m->fail("too many shared arrays", file, line);
    if (total + bytes > SHARED_PLAIN) m->fail("more than 48 KiB of static shared memory", file, line);
    if (total + bytes + m->launch->dynamic_bytes > SHARED_MOST) m->fail("more than 227 KiB of shared memory", file, line);
    const size_t start = m->take(bytes);
    m->arrays.push_back({site, start, bytes, file, line});
    return m->arena + start;
}

std::string run_grid(const Launch& launch, bool descending) {
    m = &machine();
    m->launch = &launch;
    m->descending = descending;
    m->count = launch.block.x * launch.block.y * launch.block.z;
    m->fault.clear();
    here.block_size = launch.block;
    here.grid_size = launch.grid;
    const uint3 grid = launch.grid;
    const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
    for (uint64_t i = 0; i < blocks; ++i) {
        const uint64_t b = descending ? blocks - 1 - i : i;
        here.block = {unsigned(b % grid.x), unsigned(b / grid.x % grid.y), unsigned(b / grid.x / grid.y)};
        if (m->run_block()) continue;
        // The fibres of a failed block wait for ever: all begin anew.
        m->idle.clear();
        for (auto& fibre : m->fibres) {
            fibre->reset();
            m->idle.push_back(fibre.get());
        }
        break;
    }
    return m->fault;
}

}  // namespace softgpu
