// Streams as queues, the marks that events leave in them, and captures.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "context.h"

namespace softgpu {

using Work = std::function<Result()>;

// A place in a stream's queue, reached once all before it has run.
struct Mark {
    Stream& stream;
    bool reached = false;
    // By the clock of events.
    double milliseconds = 0;

    // Notes the time: the host's and what was simulated; the latter alone with
    // SOFTGPU_CLOCK=simulated, which is the same each time.
    void reach();
};

// What a stream has to do next: wait for a mark, work, and reach one; each may be missing.
struct Item {
    std::shared_ptr<Mark> after;
    Work work;
    std::shared_ptr<Mark> reaches;
};

struct Graph {
    std::vector<Work> work;
};

struct Capture {
    std::shared_ptr<Graph> graph = std::make_shared<Graph>();
    Stream* origin;
    std::vector<Stream*> joined;
    bool strict = false;
    bool broken = false;
};

struct Stream : Handle {
    // One that is `blocking` keeps the order with the default stream.
    Stream(Context& context, bool blocking);

    const bool blocking;
    // Where order is random: 0 for a stream that runs only when it must, 3 for one that runs
    // whenever it can.
    const unsigned eager;
    std::deque<Item> queue;
    std::shared_ptr<Capture> capture;
};

// The stream of a CUstream; null, with a complaint, for a bad one. 0, 1 and 2 are the default
// stream.
Stream* stream_of(void* handle, Context& context, const char* call);

// Queues work, or adds it to the capture. What goes wrong when it runs is told by a later call; by
// this one under CUDA_LAUNCH_BLOCKING=1.
Result submit(Stream& stream, Work work);
void push(Stream& stream, Item item);

// Runs what must have run before the host may go on.
void run_until(std::shared_ptr<Mark> mark);
void drain(Stream& stream);
void drain(Context& context);
// Lets the device go on a little while the host asks whether it is ready.
void poll(Stream& stream);

// Whether this thread captures, so that `call` may not happen: the graph would not hold it.
// Complains if so.
bool forbidden_in_capture(const char* call);
// Ends the capture that began on `stream`, without a graph.
std::shared_ptr<Capture> forget_capture(Stream& stream);
// Captures this thread began that forbid what could wait for the device.
extern thread_local int strict_captures;

}  // namespace softgpu
