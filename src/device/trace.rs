//! A trace of the calls of ops that an engine ran: name, shape, bytes, FLOPs, start and seconds of
//! each, and the ranges that it was in.
//!
//! Every op's door calls [`op`]. While the trace is off, that costs one branch; while it is on,
//! each op runs between two marks of the engine's clock. Of a step that is replayed from a
//! recording the marks are in the recording, so that what is timed is what runs in a training.
//!
//! The bytes of an op are those that must cross the memory bus, not those that an implementation
//! happens to move: each tensor counts once for every pass that has to see all of it (batch norm
//! reads its input twice, because statistics come first). FLOPs count a multiply-add as two.

use std::collections::HashMap;
use std::mem::take;
use std::time::Instant;

use crate::base::Result;
use crate::device::{Engine, Mark, Slot};

/// The memory traffic and arithmetic that an op cannot do without.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Bytes read from and written to memory.
    pub bytes: f64,
    /// Floating-point operations; a multiply-add is two.
    pub flops: f64,
    /// Whether the FLOPs are those of 3×3 windows one pixel apart, written as a plain sum. There
    /// are algorithms that need fewer products for these (Winograd's), so they have a peak of their
    /// own.
    pub windows: bool,
}

impl Work {
    /// The work of an op that only moves memory.
    pub fn moved(bytes: usize) -> Self {
        Work { bytes: bytes as f64, ..Work::default() }
    }

    /// The same bytes, with this many FLOPs.
    pub fn flops(self, flops: f64) -> Self {
        Work { flops, ..self }
    }

    /// The same bytes and FLOPs, which are of 3×3 windows one pixel apart if `windows`.
    pub fn windows(self, windows: bool) -> Self {
        Work { windows, ..self }
    }
}

/// The total bytes of some slots, optional slots and arrays of slots: `bytes![x, y, residual]`.
macro_rules! bytes {
    ($($slot:expr),+ $(,)?) => {
        [$($crate::device::trace::Bytes::bytes(&$slot)),+].into_iter().sum::<usize>()
    };
}
pub(super) use bytes;

/// A slot, or several, that [`bytes!`] can add up.
pub(super) trait Bytes {
    fn bytes(&self) -> usize;
}

impl<T> Bytes for Slot<T> {
    fn bytes(&self) -> usize {
        Slot::bytes(*self)
    }
}

impl<B: Bytes> Bytes for Option<B> {
    fn bytes(&self) -> usize {
        self.as_ref().map_or(0, Bytes::bytes)
    }
}

impl<B: Bytes, const N: usize> Bytes for [B; N] {
    fn bytes(&self) -> usize {
        self.iter().map(Bytes::bytes).sum()
    }
}

/// One call of an op.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Call {
    /// The op and its shape: an index into [`Traced::ops`].
    pub op: usize,
    /// The innermost range that the call was in: an index into [`Traced::spans`].
    pub span: Option<usize>,
    pub work: Work,
    /// Seconds from the start of the trace to the start of the call.
    pub start: f64,
    pub seconds: f64,
    /// Whether the time is the host's, which the call kept busy; else it is the engine's.
    pub host: bool,
}

/// A named range, such as a phase, a step or a layer. It lasts as long as the calls in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub name: String,
    /// The range around it: an index of a span before.
    pub parent: Option<usize>,
}

/// What was traced.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Traced {
    /// Ops with their shapes.
    pub ops: Vec<String>,
    /// Calls, in the order in which they were timed.
    pub calls: Vec<Call>,
    pub spans: Vec<Span>,
}

impl Traced {
    /// The name of the outermost range that a call was in, if it was in one.
    pub fn outermost(&self, call: &Call) -> Option<&str> {
        let mut span = &self.spans[call.span?];
        while let Some(parent) = span.parent {
            span = &self.spans[parent];
        }
        Some(&span.name)
    }
}

/// A call that was queued between two marks whose times have not been read yet.
pub(super) struct Pending {
    op: usize,
    span: Option<usize>,
    work: Work,
    start: Mark,
    end: Mark,
}

/// The calls and ranges of a recording, whose marks get new times whenever it is replayed.
#[derive(Default)]
pub(super) struct Noted {
    calls: Vec<Pending>,
    /// What the calls' ops are an index into: those of another trace than that of a replay.
    ops: Vec<String>,
    /// Ranges that began in the recording. Their parents, and the ranges of calls, are counted
    /// from the first of these; `None` is the range around the recording.
    spans: Vec<Span>,
}

impl Noted {
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }
}

/// The calls that an engine ran since the trace was started. Off by default.
#[derive(Default)]
pub struct Trace {
    /// The start of the trace by both clocks. `None`: the trace is off.
    origin: Option<(Mark, Instant)>,
    pending: Vec<Pending>,
    /// The ranges that are open.
    open: Vec<usize>,
    /// The index of each op.
    index: HashMap<String, usize>,
    traced: Traced,
}

impl Trace {
    /// Whether calls are traced.
    pub fn is_on(&self) -> bool {
        self.origin.is_some()
    }

    /// Opens a range.
    pub(super) fn enter(&mut self, name: &str) {
        if self.is_on() {
            let parent = self.open.last().copied();
            self.open.push(self.traced.spans.len());
            self.traced.spans.push(Span { name: name.into(), parent });
        }
    }

    /// Closes the range that was opened last.
    pub(super) fn leave(&mut self) {
        self.open.pop();
    }

    /// The places from which on [`Trace::cut`] takes what is noted.
    pub(super) fn place(&self) -> (usize, usize) {
        (self.pending.len(), self.traced.spans.len())
    }

    /// Takes out what was noted since `place`.
    pub(super) fn cut(&mut self, (calls, spans): (usize, usize)) -> Noted {
        let within = |span: Option<usize>| span.and_then(|span| span.checked_sub(spans));
        let mut noted = Noted {
            calls: self.pending.split_off(calls),
            ops: self.traced.ops.clone(),
            spans: self.traced.spans.split_off(spans),
        };
        noted.calls.iter_mut().for_each(|call| call.span = within(call.span));
        noted.spans.iter_mut().for_each(|span| span.parent = within(span.parent));
        noted
    }

    fn op(&mut self, name: String) -> usize {
        *self.index.entry(name).or_insert_with_key(|name| {
            self.traced.ops.push(name.clone());
            self.traced.ops.len() - 1
        })
    }
}

impl dyn Engine + '_ {
    /// Starts the trace, and forgets what was traced before (a host synchronisation).
    pub fn start_trace(&mut self) -> Result<()> {
        let origin = self.mark()?;
        // What was queued before has run now, so both clocks start at one moment.
        self.seconds(&origin, &origin)?;
        *self.trace() = Trace { origin: Some((origin, Instant::now())), ..Trace::default() };
        Ok(())
    }

    /// Ends the trace, and returns what was traced since it was started (a host synchronisation).
    pub fn take_trace(&mut self) -> Result<Traced> {
        settle(self)?;
        Ok(take(self.trace()).traced)
    }
}

/// Reads the times of the pending calls.
pub(super) fn settle(dev: &mut dyn Engine) -> Result<()> {
    let pending = take(&mut dev.trace().pending);
    read(dev, &pending, |op| op, |span| span)
}

/// Reads the times of a recording that was just replayed (a host synchronisation).
pub(super) fn replayed(dev: &mut dyn Engine, noted: &Noted) -> Result<()> {
    // NOTE: the marks in the recording may still have the times of the replay before.
    let end = dev.mark()?;
    dev.seconds(&end, &end)?;
    let trace = dev.trace();
    let (first, around) = (trace.traced.spans.len(), trace.open.last().copied());
    let here = |span: Option<usize>| span.map(|span| first + span).or(around);
    let spans = noted.spans.iter();
    trace
        .traced
        .spans
        .extend(spans.map(|span| Span { name: span.name.clone(), parent: here(span.parent) }));
    let ops: Vec<usize> = noted.ops.iter().map(|name| trace.op(name.clone())).collect();
    read(dev, &noted.calls, |op| ops[op], here)
}

fn read(
    dev: &mut dyn Engine,
    calls: &[Pending],
    op: impl Fn(usize) -> usize,
    span: impl Fn(Option<usize>) -> Option<usize>,
) -> Result<()> {
    let Some((origin, since)) = dev.trace().origin.take() else { return Ok(()) };
    for call in calls {
        let seconds = dev.seconds(&call.start, &call.end)?;
        let start = dev.seconds(&origin, &call.start)?;
        let (op, work, span) = (op(call.op), call.work, span(call.span));
        let call = Call { op, span, work, start, seconds, host: false };
        dev.trace().traced.calls.push(call);
    }
    dev.trace().origin = Some((origin, since));
    Ok(())
}

/// Runs the op `name` by calling `body`, and adds it to the trace if that is on. `shape` and `work`
/// are called only then.
pub(super) fn op(
    dev: &mut (dyn Engine + '_),
    name: &str,
    shape: impl FnOnce() -> String,
    work: impl FnOnce() -> Work,
    body: impl FnOnce(&mut dyn Engine) -> Result<()>,
) -> Result<()> {
    let start = if dev.trace().is_on() { Some(dev.mark()?) } else { None };
    body(dev)?;
    start.map_or(Ok(()), |start| note(dev, format!("{name} {}", shape()), work(), start))
}

/// Records an op that began at the mark `start` and has just been queued.
fn note(dev: &mut dyn Engine, name: String, work: Work, start: Mark) -> Result<()> {
    let end = dev.mark()?;
    let trace = dev.trace();
    let (op, span) = (trace.op(name.trim_end().to_string()), trace.open.last().copied());
    trace.pending.push(Pending { op, span, work, start, end });
    Ok(())
}

/// Runs `body`, a copy of `bytes` bytes that keeps the host busy, and adds it to the trace by the
/// host's clock if that is on. Nothing waits for it that would not otherwise.
pub(super) fn host<T>(
    dev: &mut (dyn Engine + '_),
    name: &str,
    bytes: usize,
    body: impl FnOnce(&mut dyn Engine) -> Result<T>,
) -> Result<T> {
    let before = Instant::now();
    let out = body(dev)?;
    let seconds = before.elapsed().as_secs_f64();
    let trace = dev.trace();
    if let Some((_, since)) = trace.origin {
        let start = (before - since).as_secs_f64();
        let (op, span) = (trace.op(name.to_string()), trace.open.last().copied());
        let work = Work::moved(bytes);
        trace.traced.calls.push(Call { op, span, work, start, seconds, host: true });
    }
    Ok(out)
}
