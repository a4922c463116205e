// Device memory: host memory between guards, full of 0xFF at first.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include <string>
#include <utility>
#include <vector>

namespace softgpu {

using Address = uint64_t;

struct Range {
    Address start;
    size_t bytes;
};

size_t total_memory();
size_t live_memory();

// 0 where there is not so much memory. `owner` is a context.
Address allocate(size_t bytes, bool pinned_host, const void* owner);
// Takes memory that nobody gets. False where there is not so much.
bool take(size_t bytes);
void give_back(size_t bytes);
// Frees what `owner` has. Returns how many allocations that were, on the device and of pinned
// memory.
std::pair<int, int> release_all(const void* owner);
// False where `start` is no allocation. `damage` says whether a guard was written.
bool release(Address start, std::string& damage);
// The allocation that [at, at + bytes] lies in; `bytes` 0 where there is none. `at` may be an
// allocation's end.
Range find(Address at, size_t bytes);
// All allocations, by address.
std::vector<Range> allocations();
// Whether a copy may read or write these bytes of the host while the host goes on.
bool is_pinned(Address at, size_t bytes);
// What is wrong with the guards of the allocation at `start`, or nothing.
std::string damage_of(Address start);

// memcpy for memory that the test rig may have forbidden.
void copy(void* to, const void* from, size_t bytes);
// The first byte that differs, or `bytes`.
size_t first_difference(const void* a, const void* b, size_t bytes);

}  // namespace softgpu
