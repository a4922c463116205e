#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <map>
#include <mutex>
#include <vector>

#include "fibre.h"

namespace softgpu {

namespace {

// NOTE: allocations begin 256 bytes behind a page: a driver promises no more than multiples of 256.
constexpr size_t GUARD = 4096 + 256;
constexpr unsigned char POISON = 0xFF, GUARD_BYTE = 0xA5;

struct Allocation {
    size_t bytes;
    bool pinned_host;
    const void* owner;
};

std::mutex mutex;
std::map<Address, Allocation>& table() {
    // NOTE: never destroyed: host threads may free memory while the process ends.
    static auto* table = new std::map<Address, Allocation>;
    return *table;
}
size_t live = 0;

size_t padded(size_t bytes) { return (bytes + 255) / 256 * 256; }

char* at(Address a) { return reinterpret_cast<char*>(a); }

std::string guards(Address start, size_t bytes) {
#ifdef SOFTGPU_ASAN
    (void)start, (void)bytes;  // ASan watches them
#else
    const char* before = at(start) - GUARD;
    const char* behind = at(start) + bytes;
    const size_t tail = padded(bytes) - bytes + GUARD;
    const auto report = [&](const char* where, size_t off) {
        char text[160];
        snprintf(text, sizeof text, "written %zu bytes %s an allocation of %zu bytes", off, where,
                 bytes);
        return std::string(text);
    };
    for (size_t i = 0; i < tail; ++i) {
        if (behind[i] != char(GUARD_BYTE)) return report("behind the end of", i);
    }
    for (size_t i = GUARD; i-- > 0;) {
        if (before[i] != char(GUARD_BYTE)) return report("before the start of", GUARD - i);
    }
#endif
    return {};
}

// The allocation that these bytes lie in.
std::map<Address, Allocation>::iterator holder(Address address, size_t bytes) {
    auto after = table().upper_bound(address);
    if (after == table().begin()) return table().end();
    --after;
    const size_t offset = address - after->first, length = after->second.bytes;
    return offset > length || bytes > length - offset ? table().end() : after;
}

}  // namespace

size_t total_memory() {
    static const size_t bytes = [] {
        const char* mib = getenv("SOFTGPU_MEMORY_MIB");
        return size_t(mib ? atoll(mib) : 4096) << 20;
    }();
    return bytes;
}

size_t live_memory() {
    std::lock_guard<std::mutex> lock(mutex);
    return live;
}

Address allocate(size_t bytes, bool pinned_host, const void* owner) {
    std::lock_guard<std::mutex> lock(mutex);
    if (!pinned_host && (bytes > total_memory() || live + padded(bytes) > total_memory())) return 0;
    const size_t all = padded(bytes) + 2 * GUARD;
    char* memory = static_cast<char*>(aligned_alloc(4096, (all + 4095) / 4096 * 4096));
    if (!memory) return 0;
    char* start = memory + GUARD;
    memset(start, POISON, bytes);
#ifdef SOFTGPU_ASAN
    __asan_poison_memory_region(memory, GUARD);
    __asan_poison_memory_region(start + bytes, padded(bytes) - bytes + GUARD);
#else
    memset(memory, GUARD_BYTE, GUARD);
    memset(start + bytes, GUARD_BYTE, padded(bytes) - bytes + GUARD);
#endif
    const Address address = reinterpret_cast<Address>(start);
    table()[address] = {bytes, pinned_host, owner};
    if (!pinned_host) live += padded(bytes);
    return address;
}

bool take(size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex);
    const bool fits = bytes <= total_memory() - live;
    if (fits) live += bytes;
    return fits;
}

void give_back(size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex);
    live -= bytes;
}

bool release(Address start, std::string& damage) {
    Allocation a;
    {
        std::lock_guard<std::mutex> lock(mutex);
        const auto found = table().find(start);
        if (found == table().end()) return false;
        a = found->second;
        table().erase(found);
        if (!a.pinned_host) live -= padded(a.bytes);
    }
    damage = guards(start, a.bytes);
#ifdef SOFTGPU_ASAN
    __asan_unpoison_memory_region(at(start) - GUARD, padded(a.bytes) + 2 * GUARD);
#endif
    free(at(start) - GUARD);
    return true;
}

std::pair<int, int> release_all(const void* owner) {
    std::vector<Address> device, pinned;
    {
        std::lock_guard<std::mutex> lock(mutex);
        for (const auto& [start, a] : table()) {
            if (a.owner == owner) (a.pinned_host ? pinned : device).push_back(start);
        }
    }
    std::string damage;
    for (const auto& all : {device, pinned}) {
        for (const Address start : all) release(start, damage);
    }
    return {int(device.size()), int(pinned.size())};
}

Range find(Address address, size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex);
    const auto found = holder(address, bytes);
    return found == table().end() ? Range{0, 0} : Range{found->first, found->second.bytes};
}

std::vector<Range> allocations() {
    std::lock_guard<std::mutex> lock(mutex);
    std::vector<Range> all;
    for (const auto& [start, a] : table()) all.push_back({start, a.bytes});
    return all;
}

bool is_pinned(Address address, size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex);
    const auto found = holder(address, bytes);
    return found != table().end() && found->second.pinned_host;
}

std::string damage_of(Address start) {
    const Range range = find(start, 0);
    return guards(range.start, range.bytes);
}

#ifdef SOFTGPU_ASAN
// NOTE: by hand, as ASan watches memcpy itself; the empty asm keeps the compiler from making it a
// memcpy again.
__attribute__((no_sanitize("address", "undefined"))) void copy(void* to, const void* from,
                                                               size_t bytes) {
    char* t = static_cast<char*>(to);
    const char* f = static_cast<const char*>(from);
    size_t i = 0;
    for (; i + 8 <= bytes; i += 8) {
        *reinterpret_cast<uint64_t*>(t + i) = *reinterpret_cast<const uint64_t*>(f + i);
        asm volatile("" ::: "memory");
    }
    for (; i < bytes; ++i) {
        t[i] = f[i];
        asm volatile("" ::: "memory");
    }
}
__attribute__((no_sanitize("address", "undefined"))) size_t first_difference(const void* a,
                                                                             const void* b,
                                                                             size_t bytes) {
    const char* x = static_cast<const char*>(a);
    const char* y = static_cast<const char*>(b);
    size_t i = 0;
    while (i + 8 <= bytes &&
           *reinterpret_cast<const uint64_t*>(x + i) == *reinterpret_cast<const uint64_t*>(y + i))
        i += 8;
    while (i < bytes && x[i] == y[i]) ++i;
    return i;
}
#else
void copy(void* to, const void* from, size_t bytes) { memmove(to, from, bytes); }
size_t first_difference(const void* a, const void* b, size_t bytes) {
    if (memcmp(a, b, bytes) == 0) return bytes;
    const char* x = static_cast<const char*>(a);
    const char* y = static_cast<const char*>(b);
    size_t i = 0;
    while (x[i] == y[i]) ++i;
    return i;
}
#endif

}  // namespace softgpu

// The test rig forbids the sentinels around a buffer: a kernel that touches them dies there and
// then in the ASan build.
extern "C" __attribute__((visibility("default"))) void softgpu_forbid(uint64_t start,
                                                                      size_t bytes) {
#ifdef SOFTGPU_ASAN
    __asan_poison_memory_region(softgpu::at(start), bytes);
#else
    (void)start, (void)bytes;
#endif
}
extern "C" __attribute__((visibility("default"))) void softgpu_allow(uint64_t start, size_t bytes) {
#ifdef SOFTGPU_ASAN
    __asan_unpoison_memory_region(softgpu::at(start), bytes);
#else
    (void)start, (void)bytes;
#endif
}
