//! Values of Python as those of the core. Everything that cannot be is `InvalidArgument` and says what would do.

use bytes::Bytes;
use pyo3::{
    IntoPyObjectExt, intern,
    prelude::*,
    types::{PyBytes, PyDict, PyList, PyMemoryView, PyString, PyTuple},
};
use serde_json::Value;
use whimbrel::{Error, Message, Result};
use whimbrel_bindings_support::Draft;

use crate::error::invalid;

/// What a message may say besides its body, in the order of the tuple in which the shell hands it over.
pub(crate) const FIELDS: [&str; 14] = [
    "lane",
    "properties",
    "message_id",
    "correlation_id",
    "user_id",
    "content_type",
    "content_encoding",
    "creation_time_ms",
    "message_schema",
    "output_name",
    "interface_id",
    "component",
    "expires_in_ms",
    "durability",
];

/// The message with this body and the values of [`FIELDS`]; no tuple says nothing.
pub(crate) fn message(
    operation: &'static str,
    body: &Bound<'_, PyAny>,
    fields: Option<&Bound<'_, PyTuple>>,
) -> Result<Message> {
    let body = bytes(operation, body)?;
    let mut draft = Draft::default();
    let Some(fields) = fields else { return draft.message(operation, body) };
    for (name, value) in FIELDS.iter().zip(fields.iter_borrowed()) {
        if value.is_none() {
            continue;
        }
        let value = &*value;
        let place = match *name {
            "lane" => &mut draft.lane,
            "properties" => {
                draft.properties = properties(operation, value)?;
                continue;
            }
            "message_id" => &mut draft.message_id,
            "correlation_id" => &mut draft.correlation_id,
            "user_id" => &mut draft.user_id,
            "content_type" => &mut draft.content_type,
            "content_encoding" => &mut draft.content_encoding,
            "creation_time_ms" => {
                let at =
                    value.extract().map_err(|_| invalid(operation, "creation_time", "cannot be kept"))?;
                draft.creation_time_ms = Some(at);
                continue;
            }
            "message_schema" => &mut draft.message_schema,
            "output_name" => &mut draft.output_name,
            "interface_id" => &mut draft.interface_id,
            "component" => &mut draft.component,
            "expires_in_ms" => {
                let ms = value.extract().map_err(|_| invalid(operation, "expires_in", "cannot be kept"))?;
                draft.expires_in_ms = Some(ms);
                continue;
            }
            _ => &mut draft.durability,
        };
        *place = Some(text(operation, name, value)?);
    }
    draft.message(operation, body)
}

/// A copy of a body. The limited API of Python 3.9 and 3.10 has no buffers, so what is not `bytes` is copied by a `memoryview`,
/// which is as fast but for the two objects it makes.
pub(crate) fn bytes(operation: &'static str, body: &Bound<'_, PyAny>) -> Result<Bytes> {
    if let Ok(body) = body.cast::<PyBytes>() {
        return Ok(copied(body));
    }
    if body.is_instance_of::<PyString>() {
        let text = "is text: encode it, as in text.encode(), or use send_json";
        return Err(invalid(operation, "the body", text));
    }
    let wrong = |_| {
        let text = "is neither bytes nor anything else with the buffer protocol";
        invalid(operation, "the body", text)
    };
    let view = PyMemoryView::from(body).map_err(wrong)?;
    let py = body.py();
    let contiguous =
        view.getattr(intern!(py, "c_contiguous")).and_then(|is| is.is_truthy()).map_err(wrong)?;
    if !contiguous {
        let text = "is not C-contiguous: copy it into bytes first";
        return Err(invalid(operation, "the body", text));
    }
    let copy = view.call_method0(intern!(py, "tobytes")).map_err(wrong)?;
    // Otherwise an array would be locked until the view is collected.
    let _ = view.call_method0(intern!(py, "release"));
    match copy.cast::<PyBytes>() {
        Ok(copy) => Ok(copied(copy)),
        Err(_) => Err(invalid(operation, "the body", "cannot be copied")),
    }
}

/// Bytes do not change, so long ones are copied while others go on.
fn copied(body: &Bound<'_, PyBytes>) -> Bytes {
    let bytes = body.as_bytes();
    if bytes.len() > LONG {
        body.py().detach(|| Bytes::copy_from_slice(bytes))
    } else {
        Bytes::copy_from_slice(bytes)
    }
}

/// A text. One with half of a surrogate pair is none: it has no UTF-8.
pub(crate) fn text(operation: &'static str, name: &str, value: &Bound<'_, PyAny>) -> Result<String> {
    let value = value.cast::<PyString>().map_err(|_| invalid(operation, name, "is no str"))?;
    match value.to_cow() {
        Ok(value) => Ok(value.into_owned()),
        Err(_) => Err(invalid(operation, name, "holds half of a surrogate pair, which is no text")),
    }
}

fn properties(operation: &'static str, value: &Bound<'_, PyAny>) -> Result<Vec<(String, String)>> {
    let name = "properties";
    let wrong = |_| invalid(operation, name, "is no mapping of str to str");
    let made;
    let value = match value.cast::<PyDict>() {
        Ok(value) => value,
        Err(_) => {
            made = value.py().get_type::<PyDict>().call1((value,)).map_err(wrong)?;
            made.cast::<PyDict>().map_err(|_| invalid(operation, name, "is no mapping of str to str"))?
        }
    };
    let pair = |(key, value)| -> Result<_, Error> {
        Ok((
            text(operation, "the name of a property", &key)?,
            text(operation, "the value of a property", &value)?,
        ))
    };
    value.iter().map(pair).collect()
}

/// A JSON document as the objects of Python.
pub(crate) fn json<'py>(py: Python<'py>, document: &Value) -> PyResult<Bound<'py, PyAny>> {
    match document {
        Value::Null => Ok(py.None().into_bound(py)),
        Value::Bool(value) => value.into_bound_py_any(py),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => number.into_bound_py_any(py),
            (None, Some(number)) => number.into_bound_py_any(py),
            (None, None) => number.as_f64().into_bound_py_any(py),
        },
        Value::String(text) => text.into_bound_py_any(py),
        Value::Array(items) => {
            let list = PyList::empty(py);
            for item in items {
                list.append(json(py, item)?)?;
            }
            Ok(list.into_any())
        }
        Value::Object(fields) => {
            let dict = PyDict::new(py);
            for (name, value) in fields {
                dict.set_item(name, json(py, value)?)?;
            }
            Ok(dict.into_any())
        }
    }
}

/// Bytes beyond which a body is copied without the interpreter's lock.
const LONG: usize = 64 << 10;
