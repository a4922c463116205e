//! A pickle machine that runs no code: protocols 2 to 5, as far as `torch.save` uses them.
//!
//! Source: the opcode table of CPython's `pickletools`. Memory is bounded by the pickle's length:
//! every opcode adds at most one value, strings are slices of the input, and nothing recurses.

use std::collections::HashMap;

use super::fault::{Fault, Result};
use super::object::{Global, Heap, Object, Value, build, storage};

/// A checkpoint of ResNet-18 with its optimizer has a pickle of some 40 kB.
const MAX_PICKLE: usize = 8 << 20;

#[derive(Debug)]
pub struct Pickle<'a> {
    pub root: Value<'a>,
    pub heap: Heap<'a>,
    /// Bytes up to and with STOP.
    pub used: usize,
}

/// Runs the pickle that `bytes` begins with.
pub fn load(bytes: &[u8]) -> Result<Pickle<'_>> {
    let bytes = &bytes[..bytes.len().min(MAX_PICKLE)];
    let mut machine = Machine {
        rest: bytes,
        stack: vec![],
        marks: vec![],
        memo: HashMap::new(),
        heap: Heap::default(),
    };
    loop {
        let [op] = machine.take::<1>()?;
        if op == b'.' {
            let root = machine.pop()?;
            return Ok(Pickle { root, heap: machine.heap, used: bytes.len() - machine.rest.len() });
        }
        machine.step(op)?;
    }
}

struct Machine<'a> {
    rest: &'a [u8],
    stack: Vec<Value<'a>>,
    /// Heights of the stack at each open MARK.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    heap: Heap<'a>,
}

impl<'a> Machine<'a> {
    fn step(&mut self, op: u8) -> Result<()> {
        match op {
            // PROTO, FRAME
            0x80 => match self.take::<1>()? {
                [2..=5] => {}
                [n] => {
                    return Err(Fault::unsupported(format!(
                        "a pickle of protocol {n}; 2 to 5 are read"
                    )));
                }
            },
            0x95 => drop(self.take::<8>()?),

            // MARK, POP, POP_MARK, DUP
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }

            // NONE, NEWTRUE, NEWFALSE, BININT, BININT1, BININT2, LONG1, BINFLOAT
            b'N' => self.stack.push(Value::None),
            0x88 => self.stack.push(Value::Bool(true)),
            0x89 => self.stack.push(Value::Bool(false)),
            b'J' => {
                let n = i32::from_le_bytes(self.take()?);
                self.stack.push(Value::Int(n.into()));
            }
            b'K' => {
                let [n] = self.take()?;
                self.stack.push(Value::Int(n.into()));
            }
            b'M' => {
                let n = u16::from_le_bytes(self.take()?);
                self.stack.push(Value::Int(n.into()));
            }
            0x8a => {
                let n = self.long()?;
                self.stack.push(Value::Int(n));
            }
            b'G' => {
                let x = f64::from_be_bytes(self.take()?);
                self.stack.push(Value::Float(x));
            }

            // BINUNICODE, SHORT_BINUNICODE, BINUNICODE8; SHORT_BINSTRING, BINSTRING: the strings of
            // Python 2
            b'X' => self.text::<4>(true)?,
            0x8c => self.text::<1>(true)?,
            0x8d => self.text::<8>(true)?,
            b'U' => self.text::<1>(false)?,
            b'T' => self.text::<4>(false)?,
            // SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8
            b'C' => self.skip::<1>()?,
            b'B' => self.skip::<4>()?,
            0x8e | 0x96 => self.skip::<8>()?,

            // EMPTY_LIST, EMPTY_TUPLE, EMPTY_SET; LIST, TUPLE, FROZENSET; TUPLE1, TUPLE2, TUPLE3
            b']' | b')' | 0x8f => self.put(Object::Sequence(vec![])),
            b'l' | b't' | 0x91 => {
                let items = self.pop_mark()?;
                self.put(Object::Sequence(items));
            }
            0x85..=0x87 => {
                let mut items = Vec::with_capacity(3);
                for _ in 0x84..op {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.put(Object::Sequence(items));
            }
            // APPEND; APPENDS, ADDITEMS
            b'a' => {
                let item = self.pop()?;
                self.append(&[item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.append(&items)?;
            }
            // EMPTY_DICT, DICT, SETITEM, SETITEMS
            b'}' => self.put(Object::Dict(vec![])),
            b'd' => {
                let items = self.pop_mark()?;
                self.put(Object::Dict(vec![]));
                self.set(&items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set(&items)?;
            }

            // BINPUT, LONG_BINPUT, MEMOIZE, BINGET, LONG_BINGET
            b'q' | b'r' | 0x94 => {
                let slot = match op {
                    b'q' => u32::from(self.take::<1>()?[0]),
                    b'r' => u32::from_le_bytes(self.take()?),
                    _ => self.memo.len() as u32,
                };
                let top = self.top()?;
                self.memo.insert(slot, top);
            }
            b'h' | b'j' => {
                let slot = if op == b'h' {
                    self.take::<1>()?[0].into()
                } else {
                    u32::from_le_bytes(self.take()?)
                };
                let value = self.memo.get(&slot).copied();
                self.stack
                    .push(value.ok_or_else(|| {
                        Fault::damaged("the pickle recalls what it never stored")
                    })?);
            }

            // GLOBAL, STACK_GLOBAL
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.stack.push(Value::Global(Global::named(module, name)?));
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Str(name), Value::Str(module)) => {
                    self.stack.push(Value::Global(Global::named(module, name)?));
                }
                _ => return Err(Fault::damaged("the pickle names a Python object without text")),
            },
            // REDUCE, NEWOBJ
            b'R' | 0x81 => {
                let (args, callable) = (self.pop()?, self.pop()?);
                let built = build(&mut self.heap, callable, args)?;
                self.stack.push(built);
            }
            // BUILD
            b'b' => {
                let state = self.pop()?;
                self.set_state(state)?;
            }
            // BINPERSID
            b'Q' => {
                let id = self.pop()?;
                let storage = storage(&mut self.heap, id)?;
                self.stack.push(storage);
            }
            _ => {
                return Err(Fault::damaged(format!(
                    "the pickle has an opcode {op:#04x} that torch.save does not write"
                )));
            }
        }
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk().ok_or_else(ends_early)?;
        self.rest = rest;
        Ok(*head)
    }

    /// The bytes behind a length of `N` bytes.
    fn block<const N: usize>(&mut self) -> Result<&'a [u8]> {
        let mut len = [0; 8];
        len[..N].copy_from_slice(&self.take::<N>()?);
        let len = usize::try_from(u64::from_le_bytes(len)).map_err(|_| ends_early())?;
        let (head, rest) = self.rest.split_at_checked(len).ok_or_else(ends_early)?;
        self.rest = rest;
        Ok(head)
    }

    /// A string; text of Python 3 is UTF-8, Python 2 may have put any bytes into one.
    fn text<const N: usize>(&mut self, utf8: bool) -> Result<()> {
        let value = match std::str::from_utf8(self.block::<N>()?) {
            Ok(text) => Value::Str(text),
            Err(_) if !utf8 => Value::Bytes,
            Err(_) => return Err(Fault::damaged("a string of the pickle is not UTF-8")),
        };
        self.stack.push(value);
        Ok(())
    }

    fn skip<const N: usize>(&mut self) -> Result<()> {
        self.block::<N>()?;
        self.stack.push(Value::Bytes);
        Ok(())
    }

    fn line(&mut self) -> Result<&'a str> {
        let end = self.rest.iter().position(|&b| b == b'\n').ok_or_else(ends_early)?;
        let (head, rest) = self.rest.split_at(end);
        self.rest = &rest[1..];
        std::str::from_utf8(head).map_err(|_| Fault::damaged("a name in the pickle is not UTF-8"))
    }

    /// A little-endian two's complement integer of at most 16 bytes.
    fn long(&mut self) -> Result<i128> {
        let bytes = self.block::<1>()?;
        let sign = if bytes.last().is_some_and(|&b| b >= 0x80) { 0xff } else { 0 };
        let mut wide = [sign; 16];
        let Some(low) = wide.get_mut(..bytes.len()) else {
            return Err(Fault::unsupported(format!(
                "the pickle has an integer of {} bytes",
                bytes.len()
            )));
        };
        low.copy_from_slice(bytes);
        Ok(i128::from_le_bytes(wide))
    }

    fn put(&mut self, object: Object<'a>) {
        let value = self.heap.put(object);
        self.stack.push(value);
    }

    fn top(&self) -> Result<Value<'a>> {
        self.stack
            .last()
            .copied()
            .ok_or_else(|| Fault::damaged("the pickle uses a value it never made"))
    }

    fn pop(&mut self) -> Result<Value<'a>> {
        let top = self.top()?;
        if self.marks.last() == Some(&self.stack.len()) {
            return Err(Fault::damaged("the pickle uses a value it never made"));
        }
        self.stack.pop();
        Ok(top)
    }

    fn pop_mark(&mut self) -> Result<Vec<Value<'a>>> {
        let mark = self
            .marks
            .pop()
            .ok_or_else(|| Fault::damaged("the pickle closes a group it never opened"))?;
        Ok(self.stack.split_off(mark))
    }

    fn append(&mut self, items: &[Value<'a>]) -> Result<()> {
        match self.heap.get_mut(self.top()?) {
            Some(Object::Sequence(sequence)) => sequence.extend_from_slice(items),
            _ => return Err(Fault::damaged("the pickle appends to what is no list")),
        }
        Ok(())
    }

    fn set(&mut self, items: &[Value<'a>]) -> Result<()> {
        let (pairs, odd) = items.as_chunks::<2>();
        match self.heap.get_mut(self.top()?) {
            Some(Object::Dict(dict)) if odd.is_empty() => {
                dict.extend(pairs.iter().map(|&[k, v]| (k, v)))
            }
            _ => return Err(Fault::damaged("the pickle sets an item of what is no dict")),
        }
        Ok(())
    }

    /// BUILD gives an object its `__dict__`. Only a Namespace's matters: an OrderedDict's holds
    /// layer versions (`_metadata`), a tensor's its gradient flags.
    fn set_state(&mut self, state: Value<'a>) -> Result<()> {
        let top = self.top()?;
        if let Some(Object::Namespace(_)) = self.heap.get(top) {
            let items = self.heap.copy_pairs(state)?;
            if let Some(Object::Namespace(own)) = self.heap.get_mut(top) {
                own.extend(items);
            }
        }
        Ok(())
    }
}

fn ends_early() -> Fault {
    Fault::damaged("the pickle ends early")
}
