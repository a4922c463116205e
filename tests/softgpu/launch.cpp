// A launch: parameters are looked at, then the grid runs; then guards are checked; and where memory
// is small it runs again from the same memory with blocks, warps and lanes in descending order, and
// must leave the same bits. A difference is a race or a missing barrier.
//
// The memory that a launch may write is known from its parameters: the allocations that pointers to
// what is not const point into (and every word of a struct that looks like such a pointer).
// Pointers that a kernel reads from memory are not followed.
#include "launch.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "memory.h"

namespace softgpu {

namespace {

// The second run is skipped above this much memory to compare.
constexpr size_t MOST_COMPARED = 64 << 20;

std::mutex mutex;
thread_local std::string said;

void write_counts();

std::map<std::string, Kernel>& table() {
    static auto* table = [] {
        atexit(write_counts);
        return new std::map<std::string, Kernel>;
    }();
    return *table;
}

// One line per kernel: its name and how often it was launched. Appended, as several processes of a
// test may write it.
void write_counts() {
    const char* path = getenv("SOFTGPU_COUNTS");
    FILE* file = path ? fopen(path, "a") : nullptr;
    if (!file) return;
    for (const auto& [name, kernel] : table())
        fprintf(file, "%s %zu\n", name.c_str(), kernel.launches);
    fclose(file);
}

int orders() {
    static const int orders = [] {
        const char* text = getenv("SOFTGPU_ORDERS");
        return text ? atoi(text) : 2;
    }();
    return orders;
}

// SOFTGPU_FAIL=norm_stats_bf16:N lets the N-th launch of a kernel fail (from 1); norm_stats:N that
// of each element type.
bool fails_on_purpose(const Kernel& kernel) {
    static const std::string wanted = getenv("SOFTGPU_FAIL") ? getenv("SOFTGPU_FAIL") : "";
    if (wanted.empty()) return false;
    const std::string name = kernel.entry.name, launch = ":" + std::to_string(kernel.launches);
    return wanted == name + launch || wanted == name.substr(0, name.rfind('_')) + launch;
}

std::vector<void*> pointers(const Entry& entry, std::vector<char>& values) {
    std::vector<void*> p(entry.count + 1);
    for (size_t i = 0; i < entry.count; ++i) {
        p[i] = values.data();
        for (size_t k = 0; k < i; ++k)
            p[i] = static_cast<char*>(p[i]) + (entry.parameters[k].size + 15) / 16 * 16;
    }
    return p;
}

}  // namespace

void complain(const char* format, ...) {
    char text[2048];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "softgpu: %s\n", text);
    said = text;
}

void add_entry(const Entry& entry) { table()[entry.name].entry = entry; }

Kernel* find_kernel(const char* name) {
    const auto found = table().find(name);
    return found == table().end() ? nullptr : &found->second;
}

Call::Call(Kernel* k, uint3 grid, uint3 block, size_t dynamic_bytes, void** parameters)
    : kernel(k), grid(grid), block(block), dynamic_bytes(dynamic_bytes) {
    const Entry& entry = k->entry;
    size_t bytes = 16;
    for (size_t i = 0; i < entry.count; ++i) bytes += (entry.parameters[i].size + 15) / 16 * 16;
    values.resize(bytes);
    const std::vector<void*> to = pointers(entry, values);
    for (size_t i = 0; i < entry.count; ++i) memcpy(to[i], parameters[i], entry.parameters[i].size);
}

// What a driver refuses before it launches.
Result Call::check() const {
    const char* name = kernel->entry.name;
    const uint64_t threads = uint64_t(block.x) * block.y * block.z;
    if (threads == 0 || threads > kernel->entry.threads || block.z > 64) {
        complain("%s: blocks of %ux%ux%u threads, but __launch_bounds__(%u)", name, block.x,
                 block.y, block.z, kernel->entry.threads);
        return InvalidValue;
    }
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7fffffff || grid.y > 65535 ||
        grid.z > 65535) {
        complain("%s: a grid of %ux%ux%u blocks", name, grid.x, grid.y, grid.z);
        return InvalidValue;
    }
    const size_t fixed = kernel->shared;
    if (fixed + dynamic_bytes > shared_most) {
        complain("%s: %zu bytes of dynamic and %zu of static shared memory, where %zu are allowed",
                 name, dynamic_bytes, fixed, shared_most);
        return InvalidValue;
    }
    return Success;
}

Result Call::run() {
    const Entry& entry = kernel->entry;
    {
        std::lock_guard<std::mutex> lock(mutex);
        ++kernel->launches;
        if (fails_on_purpose(*kernel)) return IllegalAddress;
    }
    std::vector<void*> parameters = pointers(entry, values);

    std::vector<Range> writable;
    for (size_t i = 0; i < entry.count; ++i) {
        const Parameter& p = entry.parameters[i];
        if (p.kind == Parameter::Value) continue;
        for (size_t word = 0; word + 8 <= p.size; word += 8) {
            Address address;
            memcpy(&address, static_cast<char*>(parameters[i]) + word, 8);
            const Range range = address ? find(address, 0) : Range{0, 0};
            if (address && !range.start && p.kind != Parameter::Struct) {
                complain("%s: parameter %zu is 0x%llx, which is no device memory", entry.name, i,
                         (unsigned long long)address);
                return IllegalAddress;
            }
            const bool seen = std::any_of(writable.begin(), writable.end(),
                                          [&](const Range& r) { return r.start == range.start; });
            if (range.start && p.kind != Parameter::Read && !seen) writable.push_back(range);
        }
    }
    size_t bytes = 0;
    for (const Range& range : writable) bytes += range.bytes;
    const bool twice = orders() == 2 && bytes <= MOST_COMPARED;

    const auto save = [&](char* to) {
        for (const Range& range : writable) {
            copy(to, reinterpret_cast<void*>(range.start), range.bytes);
            to += range.bytes;
        }
    };
    std::unique_ptr<char[]> before(twice ? new char[bytes] : nullptr),
        after(twice ? new char[bytes] : nullptr);
    if (twice) save(before.get());

    const Launch launch{&entry,      grid,           block, dynamic_bytes, parameters.data(),
                        shared_most, &kernel->shared};
    std::string fault = run_grid(launch, false);
    for (const Range& range : writable) {
        if (fault.empty()) fault = damage_of(range.start);
    }
    if (twice && fault.empty()) {
        save(after.get());
        const char* from = before.get();
        for (const Range& range : writable) {
            copy(reinterpret_cast<void*>(range.start), from, range.bytes);
            from += range.bytes;
        }
        fault = run_grid(launch, true);
        from = after.get();
        for (const Range& range : writable) {
            if (!fault.empty()) break;
            const size_t off =
                first_difference(reinterpret_cast<void*>(range.start), from, range.bytes);
            if (off < range.bytes) {
                char text[256];
                snprintf(text, sizeof text,
                         "result depends on the order of threads: race or missing barrier (byte "
                         "%zu of an allocation of %zu)",
                         off, range.bytes);
                fault = text;
            }
            from += range.bytes;
        }
    }
    if (fault.empty()) return Success;
    complain("%s: %s", entry.name, fault.c_str());
    return LaunchFailed;
}

}  // namespace softgpu

// The last complaint about what this host thread did.
extern "C" __attribute__((visibility("default"))) const char* softgpu_said() {
    return softgpu::said.c_str();
}

// The index-th kernel by name, with its launches so far; null behind the last.
extern "C" __attribute__((visibility("default"))) const char* softgpu_kernel(size_t index,
                                                                             size_t* launches) {
    std::lock_guard<std::mutex> lock(softgpu::mutex);
    if (index >= softgpu::table().size()) return nullptr;
    const auto entry = std::next(softgpu::table().begin(), index);
    *launches = entry->second.launches;
    return entry->first.c_str();
}
