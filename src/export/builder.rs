//! An ONNX graph as it grows, node by node.

use super::proto::{Attribute, Dim, Element, Graph, Node, Shape, Tensor, TensorType, Type, Value};

/// A value of an attribute.
pub enum Attr<'a> {
    Int(i64),
    Float(f32),
    Text(&'a str),
    Ints(&'a [i64]),
}

impl Attr<'_> {
    /// With its name, and the number of its type in `onnx.proto`.
    fn named(&self, name: &str) -> Attribute {
        let mut attribute = Attribute { name: name.into(), ..Attribute::default() };
        attribute.kind = Some(match self {
            Attr::Float(f) => {
                attribute.f = Some(*f);
                1
            }
            Attr::Int(i) => {
                attribute.i = Some(*i);
                2
            }
            Attr::Text(s) => {
                attribute.s = Some(s.as_bytes().to_vec());
                3
            }
            Attr::Ints(ints) => {
                attribute.ints = ints.to_vec();
                7
            }
        });
        attribute
    }
}

/// The graph so far. Values are known by their names.
#[derive(Default)]
pub struct Builder {
    graph: Graph,
}

impl Builder {
    /// A call of an operator, whose output is called `name`.
    pub fn op(
        &mut self,
        op: &str,
        name: &str,
        inputs: &[&str],
        attributes: &[(&str, Attr)],
    ) -> String {
        self.graph.node.push(Node {
            input: inputs.iter().map(|input| input.to_string()).collect(),
            output: vec![name.into()],
            name: name.into(),
            op_type: op.into(),
            attribute: attributes.iter().map(|(name, value)| value.named(name)).collect(),
        });
        name.into()
    }

    /// A constant.
    pub fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) -> String {
        self.graph.initializer.push(Tensor {
            dims: shape.iter().map(|&side| side as i64).collect(),
            data_type: Some(Element::Float as i32),
            name: name.into(),
            raw_data: bytemuck::cast_slice(values).to_vec(),
        });
        name.into()
    }

    /// Declares an input of the model.
    pub fn input(&mut self, name: &str, element: Element, dims: &[&str], doc: &str) {
        self.graph.input.push(value(name, element, dims, doc));
    }

    /// Declares an output of the model.
    pub fn output(&mut self, name: &str, element: Element, dims: &[&str], doc: &str) {
        self.graph.output.push(value(name, element, dims, doc));
    }

    /// The whole graph.
    pub fn finish(self, name: &str) -> Graph {
        Graph { name: name.into(), ..self.graph }
    }
}

/// A tensor whose sides are numbers or names.
fn value(name: &str, element: Element, dims: &[&str], doc: &str) -> Value {
    let dim = |text: &&str| match text.parse() {
        Ok(number) => Dim { value: Some(number), param: None },
        Err(_) => Dim { value: None, param: Some(text.to_string()) },
    };
    let shape = Some(Shape { dim: dims.iter().map(dim).collect() });
    let tensor = Some(TensorType { element: Some(element as i32), shape });
    Value { name: name.into(), of: Some(Type { tensor }), doc_string: doc.into() }
}
