// A stand-in for the driver's management library: one GPU, the software one, whose state is made
// up. NVML_OLD leaves out what came with later drivers.
//
// Environment: SOFTNVML_REASONS (0), the bits of what holds the clocks down; SOFTNVML_LIMIT
// (700000), the power limit in mW; SOFTNVML_FAILS=1, the library finds no driver.
#include <stdlib.h>
#include <string.h>

#include <initializer_list>

#define API extern "C" __attribute__((visibility("default"))) int

namespace {

constexpr int SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_FOUND = 6, UNINITIALIZED = 1, NO_DRIVER = 9;

int users = 0;
int gpu;

unsigned long long environment(const char* name, unsigned long long otherwise) {
    const char* text = getenv(name);
    return text ? strtoull(text, nullptr, 0) : otherwise;
}

template <class T>
int answer(const void* device, T* at, T value) {
    if (users == 0) return UNINITIALIZED;
    if (device != &gpu || !at) return INVALID_ARGUMENT;
    *at = value;
    return SUCCESS;
}

}  // namespace

API nvmlInit_v2() {
    if (environment("SOFTNVML_FAILS", 0)) return NO_DRIVER;
    ++users;
    return SUCCESS;
}

API nvmlShutdown() { return users-- > 0 ? SUCCESS : UNINITIALIZED; }

API nvmlDeviceGetHandleByUUID(const char* uuid, void** device) {
    if (users == 0) return UNINITIALIZED;
    // "GPU-" and 8-4-4-4-12 digits.
    if (strlen(uuid) != 40 || strncmp(uuid, "GPU-", 4)) return NOT_FOUND;
    for (const int at : {12, 17, 22, 27}) {
        if (uuid[at] != '-') return NOT_FOUND;
    }
    *device = &gpu;
    return SUCCESS;
}

API nvmlDeviceGetClockInfo(void* device, unsigned which, unsigned* mhz) {
    return which == 1   ? answer(device, mhz, 1755u)
           : which == 2 ? answer(device, mhz, 3201u)
                        : INVALID_ARGUMENT;
}

API nvmlDeviceGetPowerUsage(void* device, unsigned* milliwatts) {
    return answer(device, milliwatts, 500000u);
}

API nvmlDeviceGetTemperature(void* device, unsigned sensor, unsigned* celsius) {
    return sensor == 0 ? answer(device, celsius, 61u) : INVALID_ARGUMENT;
}

#ifndef NVML_OLD
API nvmlDeviceGetEnforcedPowerLimit(void* device, unsigned* milliwatts) {
    return answer(device, milliwatts, unsigned(environment("SOFTNVML_LIMIT", 700000)));
}

API nvmlDeviceGetCurrentClocksEventReasons(void* device, unsigned long long* reasons) {
    return answer(device, reasons, environment("SOFTNVML_REASONS", 0));
}
#else
API nvmlDeviceGetCurrentClocksThrottleReasons(void* device, unsigned long long* reasons) {
    return answer(device, reasons, environment("SOFTNVML_REASONS", 0));
}
#endif
