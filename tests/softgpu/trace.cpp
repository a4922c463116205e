// What kernels ask of memory, counted: the runtime behind the calls that `-fsanitize=thread` puts
// before every access of a kernel. The compiler's own runtime is not linked; there are no threads
// to watch.
//
// A site is the place of an access in the machine code. The n-th access of a site in each of a
// warp's 32 lanes, since the warp last stopped together, is one request, as a GPU would make it of
// one instruction. So lanes that skip an access fall out of step until the warp next stops: right
// behind a check of bounds, rough in a loop whose length depends on the lane. Widths are those of
// the source's types, as g++ keeps them; a compiler for GPUs may split or join.
//
// * Global memory: a request takes sectors of 32 bytes; ideal are as few as its bytes fill.
// * Shared memory: a request takes wavefronts, by bank and by what 128 bytes a cycle bring back.
// * Once: each sector that a launch reads, and each that it writes, counts once. No cache is
//   modelled: that is the least that the bus carries; sectors are the most.
//
// Not counted: stacks (a GPU's registers), constants, parameters.
#include "trace.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include <algorithm>
#include <bitset>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "memory.h"

namespace softgpu {

namespace {

constexpr unsigned SECTOR = 32, BANKS = 32, WORD = 4, WIDEST = 16;
constexpr uintptr_t PAGE = 1 << 14;

struct Counts {
    uint64_t requests = 0, lanes = 0, parts = 0, ideal = 0;
};

// The n-th access of a site, by lane.
struct Request {
    uint32_t lanes = 0;
    uintptr_t at[32];
};

struct Site {
    uintptr_t place;
    unsigned size;
    bool write, shared;
    // How often each lane came by, and the most of any, since the warp last stopped.
    uint32_t came[32] = {}, most = 0;
    std::vector<Request> open;
    // The allocation that was last found here.
    Range range = {0, 0};
    Counts counts;
};

// Of a kernel, since it was last asked for.
struct Seen {
    uint64_t launches = 0, once = 0;
    struct At {
        const Site* site;
        Counts counts;
    };
    std::map<std::pair<uintptr_t, bool>, At> sites;
};

// Sectors of a page: read, and written.
struct Touched {
    std::bitset<PAGE / SECTOR> by[2];
};

struct Trace : Tracer {
    std::mutex one_launch;
    bool on = false;
    const char* kernel = nullptr;
    uintptr_t arena = 0, arena_end = 0;
    std::vector<Range> ranges;
    std::unordered_map<uintptr_t, Touched> pages;
    // By place, of shared memory and not.
    std::unordered_map<uintptr_t, std::unique_ptr<Site>> sites[2];
    std::vector<Site*> used;
    std::map<std::string, Seen> seen;
    std::string text;

    Trace() { tracer = this; }
    void begin(const Launch& launch, const void* shared, size_t bytes) override;
    void stopped() override;
    void end() override;
    const Range* range_of(Site& site, uintptr_t at);
    void access(uintptr_t at, unsigned size, bool write, uintptr_t place);
    void count_global(Site& site, const Request& request);
};

// NOTE: never destroyed, as a host thread may launch while the process ends.
Trace& trace = *new Trace;

Site& site_of(Trace& t, uintptr_t place, unsigned size, bool write, bool shared) {
    // NOTE: loops come by the same few places again.
    static Site* last[2][256];
    Site*& near = last[shared][place % 256];
    if (near && near->place == place) return *near;
    std::unique_ptr<Site>& site = t.sites[shared][place];
    if (!site) {
        site.reset(new Site);
        site->place = place, site->size = size, site->write = write, site->shared = shared;
    }
    near = site.get();
    return *site;
}

const Range* Trace::range_of(Site& site, uintptr_t at) {
    if (at - site.range.start < site.range.bytes) return &site.range;
    for (const Range& range : ranges) {
        if (at - range.start < range.bytes) return &(site.range = range);
    }
    return nullptr;
}

void Trace::access(uintptr_t at, unsigned size, bool write, uintptr_t place) {
    if (!on) return;
    const bool shared = at >= arena && at < arena_end;
    // What lies between no allocations is left out before its site is looked for.
    if (!shared && (ranges.empty() || at < ranges.front().start ||
                    at >= ranges.back().start + ranges.back().bytes))
        return;
    Site& site = site_of(*this, place, size, write, shared);
    if (!shared && !range_of(site, at)) return;
    const unsigned lane = here.lane, nth = site.came[lane]++;
    if (site.most == 0) used.push_back(&site);
    if (nth >= site.open.size()) site.open.resize(2 * nth + 16);
    site.most = std::max(site.most, nth + 1);
    Request& request = site.open[nth];
    request.lanes |= 1u << lane;
    request.at[lane] = at;
}

// Distinct words of 4 bytes in their banks.
struct Banks {
    uintptr_t words[BANKS][32];
    unsigned count[BANKS] = {}, most = 0;

    void add(uintptr_t word) {
        const unsigned bank = word % BANKS;
        for (unsigned i = 0; i < count[bank]; ++i) {
            if (words[bank][i] == word) return;
        }
        words[bank][count[bank]] = word;
        most = std::max(most, ++count[bank]);
    }
};

// Lanes that are served at once are 32, of accesses of 8 bytes 16 and of 16 bytes 8, as 128 bytes a
// cycle go back to registers; twice as many where lanes n and n^1, or n and n^2, read the same. A
// wavefront brings one word of each bank.
void count_shared(Site& site, const Request& request, uintptr_t arena) {
    const unsigned words = std::max(1u, site.size / WORD);
    bool alike[2] = {true, true};
    for (unsigned lane = 0; lane < 32; ++lane) {
        for (int bit = 0; bit < 2; ++bit) {
            const unsigned other = lane ^ 1u << bit;
            if ((request.lanes >> lane & request.lanes >> other & 1) &&
                request.at[lane] != request.at[other])
                alike[bit] = false;
        }
    }
    const bool doubled = !site.write && words > 1 && (alike[0] || alike[1]);
    const unsigned step = 32 / words * (doubled ? 2 : 1);
    for (unsigned first = 0; first < 32; first += step) {
        Banks banks;
        for (unsigned lane = first; lane < first + step; ++lane) {
            if (!(request.lanes >> lane & 1)) continue;
            for (unsigned i = 0; i < words; ++i) banks.add((request.at[lane] - arena) / WORD + i);
        }
        site.counts.parts += banks.most;
        site.counts.ideal += banks.most > 0;
    }
}

void Trace::count_global(Site& site, const Request& request) {
    uintptr_t places[32], sectors[2 * 32];
    unsigned count = 0, found = 0;
    for (unsigned lane = 0; lane < 32; ++lane) {
        if (request.lanes >> lane & 1) places[count++] = request.at[lane];
    }
    std::sort(places, places + count);
    count = std::unique(places, places + count) - places;
    for (unsigned i = 0; i < count; ++i) {
        for (uintptr_t s = places[i] / SECTOR; s <= (places[i] + site.size - 1) / SECTOR; ++s) {
            if (!found || sectors[found - 1] != s) sectors[found++] = s;
        }
    }
    site.counts.parts += found;
    site.counts.ideal += (count * site.size + SECTOR - 1) / SECTOR;
    Touched* touched = nullptr;
    uintptr_t page = 0;
    for (unsigned i = 0; i < found; ++i) {
        const uintptr_t at = sectors[i] * SECTOR;
        if (!touched || at / PAGE != page) {
            page = at / PAGE;
            touched = &pages[page];
        }
        touched->by[site.write].set(at % PAGE / SECTOR);
    }
}

void Trace::begin(const Launch& launch, const void* shared, size_t bytes) {
    one_launch.lock();
    kernel = launch.entry->name;
    arena = reinterpret_cast<uintptr_t>(shared);
    arena_end = arena + bytes;
    ranges = allocations();
    pages.clear();
    on = true;
}

void Trace::stopped() {
    for (Site* site : used) {
        for (unsigned i = 0; i < site->most; ++i) {
            Request& request = site->open[i];
            ++site->counts.requests;
            site->counts.lanes += __builtin_popcount(request.lanes);
            if (site->shared) {
                count_shared(*site, request, arena);
            } else {
                count_global(*site, request);
            }
            request.lanes = 0;
        }
        memset(site->came, 0, sizeof site->came);
        site->most = 0;
    }
    used.clear();
}

void Trace::end() {
    on = false;
    Seen& own = seen[kernel];
    ++own.launches;
    for (const auto& [page, touched] : pages)
        own.once += SECTOR * (touched.by[0].count() + touched.by[1].count());
    for (const auto& all : sites) {
        for (const auto& [place, site] : all) {
            if (!site->counts.requests) continue;
            Seen::At& at = own.sites[{place, site->shared}];
            at.site = site.get();
            at.counts.requests += site->counts.requests;
            at.counts.lanes += site->counts.lanes;
            at.counts.parts += site->counts.parts;
            at.counts.ideal += site->counts.ideal;
            site->counts = Counts{};
            site->range = {0, 0};
        }
    }
    one_launch.unlock();
}

// What is wider than a GPU's widest access is several.
void access(const void* pointer, size_t size, bool write, void* returns) {
    uintptr_t at = reinterpret_cast<uintptr_t>(pointer);
    for (; size > WIDEST; size -= WIDEST, at += WIDEST)
        trace.access(at, WIDEST, write, reinterpret_cast<uintptr_t>(returns));
    trace.access(at, unsigned(size), write, reinterpret_cast<uintptr_t>(returns));
}

}  // namespace

void traced(const void* at, size_t bytes, bool write) {
    access(at, bytes, write, __builtin_return_address(0));
}

}  // namespace softgpu

// The launches since the last call, one line a kernel and one a site of it, whose place is one that
// addr2line knows in this library:
//
//   kernel NAME LAUNCHES ONCE
//   site PLACE global|shared read|write SIZE REQUESTS LANES PARTS IDEAL
extern "C" __attribute__((visibility("default"))) const char* softgpu_traffic() {
    using namespace softgpu;
    Dl_info info;
    dladdr(reinterpret_cast<void*>(softgpu_traffic), &info);
    const uintptr_t base = reinterpret_cast<uintptr_t>(info.dli_fbase);
    std::lock_guard<std::mutex> lock(trace.one_launch);
    trace.text.clear();
    for (const auto& [name, seen] : trace.seen) {
        trace.text += "kernel " + name + " " + std::to_string(seen.launches) + " " +
                      std::to_string(seen.once) + "\n";
        for (const auto& [key, at] : seen.sites) {
            const Counts& n = at.counts;
            char line[256];
            // NOTE: a return address is that of the next instruction.
            snprintf(line, sizeof line, "site %zx %s %s %u %zu %zu %zu %zu\n",
                     size_t(key.first - 1 - base), key.second ? "shared" : "global",
                     at.site->write ? "write" : "read", at.site->size, size_t(n.requests),
                     size_t(n.lanes), size_t(n.parts), size_t(n.ideal));
            trace.text += line;
        }
    }
    trace.seen.clear();
    return trace.text.c_str();
}

#define ACCESS(n)                                                   \
    extern "C" void __tsan_read##n(void* at) {                      \
        softgpu::access(at, n, false, __builtin_return_address(0)); \
    }                                                               \
    extern "C" void __tsan_write##n(void* at) {                     \
        softgpu::access(at, n, true, __builtin_return_address(0));  \
    }                                                               \
    extern "C" void __tsan_unaligned_read##n(void* at) {            \
        softgpu::access(at, n, false, __builtin_return_address(0)); \
    }                                                               \
    extern "C" void __tsan_unaligned_write##n(void* at) {           \
        softgpu::access(at, n, true, __builtin_return_address(0));  \
    }
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
extern "C" void __tsan_read_range(void* at, size_t bytes) {
    softgpu::access(at, bytes, false, __builtin_return_address(0));
}
extern "C" void __tsan_write_range(void* at, size_t bytes) {
    softgpu::access(at, bytes, true, __builtin_return_address(0));
}
extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}
