// The scheduler. Threads of a block are fibres; a warp runs until all its lanes wait for the block
// or have ended; then the next warp runs. A thread runs until it waits (for its warp or its block)
// or ends. All 32 lanes must wait at the same place, and all warps at the same barrier: everything
// else is an error, where a GPU would hang or, worse, would not.
//
// A lane that ends hands its stack to the next lane that has not begun, so a kernel without
// barriers is a plain loop.
#include "block.h"

#include <stdio.h>
#include <stdlib.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "copies.h"
#include "fibre.h"
#include "trace.h"

namespace softgpu {

__thread Here here;
Tracer* tracer = nullptr;

namespace {

constexpr unsigned MOST_THREADS = 1024;
constexpr size_t GUARD = 256, MOST_ARRAYS = 32, ARENA = SHARED_MOST + (MOST_ARRAYS + 1) * 2 * GUARD;
constexpr unsigned char GUARD_BYTE = 0xA5;

struct Thread {
    Fibre* fibre;      // null: has not begun, or has ended
    const Site* site;  // where it waits; null: has ended
    uint3 index;
    unsigned lane;
    Copies copies;
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

    // The running thread, its warp, how many lanes of the warp came before it in this pass, and
    // whether all of them stopped at the same site.
    Thread* current = nullptr;
    unsigned warp_start = 0, lanes = 0, pass = 0;
    const Site* site = nullptr;
    bool together = true;
    uint64_t exchange[2][32];
    Row rows[2][32];
    Factors factors[2];
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
    void check_guards();

    void stop(const Site* where);
    void go(Fibre& from);
    void wait(const Site* where);
    [[noreturn]] void fail(const char* what, const char* file, int line);
    bool run_warp();
    bool run_block();
    bool blame(const Thread& a, const Thread& b);
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

std::string who(const Machine& m, const Thread& t) {
    char text[640];
    const uint3 b = here.block;
    const int head = snprintf(text, sizeof text, "thread %u of block (%u,%u,%u) ",
                              unsigned(&t - m.threads), b.x, b.y, b.z);
    if (t.site) {
        snprintf(text + head, sizeof text - head, "waits in %s at %s:%d", t.site->op,
                 short_name(t.site->file), t.site->line);
    } else {
        snprintf(text + head, sizeof text - head, "has ended");
    }
    return text;
}

void fibre_main() {
    for (;;) {
        m->launch->entry->call(m->launch->parameters);
        Thread* done = m->current;
        if (const Site* site = done->copies.flying())
            m->fail("an asynchronous copy that is never waited for", site->file, site->line);
        Fibre* own = done->fibre;
        done->fibre = nullptr;
        m->stop(nullptr);
        Thread* next = m->current;
        if (next && !next->fibre) {
            next->fibre = own;
            here.thread = next->index;
            here.lane = next->lane;
            continue;
        }
        m->idle.push_back(own);
        m->go(*own);
    }
}

// The running thread stops at `where`; the next lane of this pass becomes current, or none.
inline void Machine::stop(const Site* where) {
    current->site = where;
    if (pass == 0) site = where;
    together &= where == site;
    current = ++pass < lanes ? current + (descending ? -1 : 1) : nullptr;
}

// Leaves `from` for the fibre of `current`, or for the scheduler where the pass has ended.
inline void Machine::go(Fibre& from) {
    Thread* to = current;
    if (!to) return from.switch_to(host);
    here.thread = to->index;
    here.lane = to->lane;
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

inline void Machine::wait(const Site* where) {
    Fibre* own = current->fibre;
    stop(where);
    go(*own);
}

// Two threads do not wait at the same place: blames the barrier or the warp operation that one of
// them waits at.
bool Machine::blame(const Thread& a, const Thread& b) {
    const Thread& waits = a.site ? a : b;
    const Thread& other = a.site ? b : a;
    char text[1600];
    snprintf(text, sizeof text, "%s at %s:%d (%s, %s)",
             waits.site->whole_block ? "diverging barrier" : "incomplete warp operation",
             short_name(waits.site->file), waits.site->line, who(*this, waits).c_str(),
             who(*this, other).c_str());
    fault = text;
    return false;
}

void Machine::fail(const char* what, const char* file, int line) {
    char text[1024];
    snprintf(text, sizeof text, "%s at %s:%d (thread %u of block (%u,%u,%u))", what,
             short_name(file), line, unsigned(current - threads), here.block.x, here.block.y,
             here.block.z);
    fault = text;
    current->fibre->switch_to(host);
    abort();
}

// Runs a warp until it waits for the block or has ended: pass after pass, in which each lane runs
// until it waits or ends.
bool Machine::run_warp() {
    for (;;) {
        pass = 0;
        together = true;
        current = &threads[warp_start + (descending ? lanes - 1 : 0)];
        go(host);
        if (tracer) tracer->stopped();
        if (!fault.empty()) return false;
        const Thread& first = threads[warp_start];
        for (unsigned i = 1; i < lanes && !together; ++i) {
            if (threads[warp_start + i].site != first.site)
                return blame(first, threads[warp_start + i]);
        }
        if (!site || site->whole_block) return true;
        if (lanes != 32) {
            fault = std::string(
                        "incomplete warp operation in a block whose size is no multiple of 32 (") +
                    who(*this, first) + ")";
            return false;
        }
        parity ^= 1;
    }
}

bool Machine::run_block() {
    for (unsigned i = 0; i < count; ++i) threads[i].fibre = nullptr, threads[i].copies.clear();
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
            if (threads[32 * w].site != threads[0].site) return blame(threads[0], threads[32 * w]);
        }
        if (!threads[0].site) break;
    }
    check_guards();
    return fault.empty();
}

// Shared memory: arrays between guards in one arena, full of 0xFF when a block begins.
#ifdef SOFTGPU_ASAN
void Machine::open(size_t start, size_t bytes) {
    __asan_unpoison_memory_region(arena + start, bytes);
}
void Machine::close(size_t start, size_t bytes) {
    __asan_poison_memory_region(arena + start, bytes);
}
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
        snprintf(text, sizeof text,
                 "written outside of the shared array of %zu bytes at %s:%d (block (%u,%u,%u))",
                 a.bytes, short_name(a.file), a.line, here.block.x, here.block.y, here.block.z);
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

void barrier(const Site* site) { m->wait(site); }

const uint64_t* exchange(const Site* site, unsigned mask, uint64_t mine) {
    if (mask != 0xffffffffu) m->fail("warp operation with a partial mask", site->file, site->line);
    m->exchange[m->parity][here.lane] = mine;
    m->wait(site);
    return m->exchange[m->parity ^ 1];
}

const Row* exchange_rows(const Site* site, const Row& mine) {
    m->rows[m->parity][here.lane] = mine;
    m->wait(site);
    return m->rows[m->parity ^ 1];
}

Factors& factors() { return m->factors[m->parity]; }

const Factors& met_with_factors(const Site* site) {
    m->wait(site);
    return m->factors[m->parity ^ 1];
}

void check_row(const Site* site, const void* p) {
    const char* const at = static_cast<const char*>(p);
    if (reinterpret_cast<uintptr_t>(at) % 16)
        m->fail("16 bytes that are not aligned to 16", site->file, site->line);
    if (at < m->arena || at >= m->arena + ARENA)
        m->fail("what must be shared memory is not", site->file, site->line);
}

void start_copy(const Site* site, void* to, const void* from) {
    check_row(site, to);
    if (reinterpret_cast<uintptr_t>(from) % 16)
        m->fail("16 bytes that are not aligned to 16", site->file, site->line);
    m->current->copies.start(site, to, from);
}

void commit_copies() { m->current->copies.commit(); }
void wait_copies(unsigned left) { m->current->copies.wait(left); }

void* dynamic_shared() {
    if (!m->launch->dynamic_bytes)
        m->fail("DYNAMIC_SHARED in a launch without dynamic shared memory", "the kernel", 0);
    return m->arena + m->dynamic_start;
}

void* shared_array(const void* site, size_t bytes, const char* file, int line) {
    size_t total = 0;
    for (const Array& a : m->arrays) {
        if (a.site == site) return m->arena + a.start;
        if (a.site) total += a.bytes;
    }
    if (m->arrays.size() == MOST_ARRAYS) m->fail("too many shared arrays", file, line);
    if (total + bytes > SHARED_PLAIN)
        m->fail("more than 48 KiB of static shared memory", file, line);
    if (total + bytes > *m->launch->shared) *m->launch->shared = total + bytes;
    if (total + bytes + m->launch->dynamic_bytes > m->launch->shared_most) {
        char text[128];
        snprintf(text, sizeof text, "more than %zu bytes of static and dynamic shared memory",
                 m->launch->shared_most);
        m->fail(text, file, line);
    }
    const size_t start = m->take(bytes);
    m->arrays.push_back({site, start, bytes, file, line});
    return m->arena + start;
}

size_t shared_most() {
    static const char* kib = getenv("SOFTGPU_SHARED");
    static const size_t most = std::min(kib ? size_t(atol(kib)) << 10 : 99 << 10, SHARED_MOST);
    return most;
}

std::string run_grid(const Launch& launch, bool descending) {
    m = &machine();
    m->launch = &launch;
    m->descending = descending;
    m->count = launch.block.x * launch.block.y * launch.block.z;
    m->fault.clear();
    for (unsigned i = 0; i < m->count; ++i) {
        const uint3 size = launch.block;
        m->threads[i].index = {i % size.x, i / size.x % size.y, i / size.x / size.y};
        m->threads[i].lane = i % 32;
    }
    here.block_size = launch.block;
    here.grid_size = launch.grid;
    const uint3 grid = launch.grid;
    const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
    if (tracer) tracer->begin(launch, m->arena, ARENA);
    for (uint64_t i = 0; i < blocks; ++i) {
        const uint64_t b = descending ? blocks - 1 - i : i;
        here.block = {unsigned(b % grid.x), unsigned(b / grid.x % grid.y),
                      unsigned(b / grid.x / grid.y)};
        if (m->run_block()) continue;
        // The fibres of a failed block wait for ever: all begin anew.
        m->idle.clear();
        for (auto& fibre : m->fibres) {
            fibre->reset();
            m->idle.push_back(fibre.get());
        }
        break;
    }
    if (tracer) tracer->end();
    return m->fault;
}

}  // namespace softgpu
