"""Writes numpy-files.json: arrays as NumPy itself saves them, with their values as NumPy prints them.

python3 test/tensor/numpy-files.py   (NumPy 2.4 made the committed file)
"""
import base64, io, json, pathlib
import numpy as np

def saved(array, version=None):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=version)
    return file.getvalue()

def case(array, version=None):
    flat = array.flatten(order="C")
    if array.dtype.kind == "c":
        values = [str(float(part)) for item in flat for part in (item.real, item.imag)]
    elif array.dtype.kind in "US":
        values = [item.decode() if isinstance(item, bytes) else item for item in flat.tolist()]
    elif array.dtype.kind == "b":
        values = [str(int(item)) for item in flat]
    else:
        values = [str(item) for item in flat.tolist()]
    name = {"U": "string", "S": "string"}.get(array.dtype.kind, array.dtype.name)
    return {"file": base64.b64encode(saved(array, version)).decode(), "dtype": name, "shape": array.shape, "values": values}

grid = np.array([[1, 2, 3], [4, 5, 6]])
arrays = {}
for name in "f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 b1 c8 c16".split():
    arrays[name] = case(grid.astype("<" + name) if name != "b1" else grid % 2 == 0)
    if name not in ("i1", "u1", "b1"):
        arrays["big-endian " + name] = case(grid.astype(">" + name))
arrays |= {
    "scalar": case(np.array(2.5)),
    "vector": case(np.arange(5, dtype="<i4")),
    "empty": case(np.zeros((3, 0, 2), "<f4")),
    "limits i8": case(np.array([-(2**63), 2**63 - 1])),
    "limits u8": case(np.array([0, 2**64 - 1], "<u8")),
    "specials f2": case(np.array([np.inf, -np.inf, np.nan, -0.0, 6e-8, 65504], "<f2")),
    "complex": case(np.array([1 + 2j, -3.5j], "<c16")),
    "fortran f4": case(np.asfortranarray(np.arange(24, dtype="<f4").reshape(2, 3, 4))),
    "fortran big-endian c8": case(np.asfortranarray((grid * (1 - 2j)).astype(">c8"))),
    "fortran text": case(np.asfortranarray(np.array([["a", "bb", "ccc"], ["d", "", "ff"]]))),
    "text": case(np.array(["apple", "çörek", "寿司", "🍣 roll", ""])),
    "big-endian text": case(np.array(["apple", "寿司"]).astype(">U5")),
    "bytes": case(np.array([b"one", b"three"])),
    "version 2": case(grid.astype("<f4"), (2, 0)),
    "version 3": case(grid.astype("<f4"), (3, 0)),
}
refused = {
    "records": saved(np.zeros(2, [("a", "<f4"), ("b", "<i8")])),
    "dates": saved(np.array(["2024-01-01"], "M8[D]")),
    "opaque": saved(np.zeros(2, "V2")),
    "long double": saved(np.zeros(2, np.longdouble)),
    "Python objects": saved(np.array([None, {}], object)),
}
archives = {}
for name, save in {"stored": np.savez, "deflated": np.savez_compressed}.items():
    file = io.BytesIO()
    save(file, features=np.arange(64, dtype="<f4").reshape(8, 8), labels=np.array(["cat", "dog"]), **{"head/logits": grid})
    archives[name] = base64.b64encode(file.getvalue()).decode()
result = {"arrays": arrays, "refused": {k: base64.b64encode(v).decode() for k, v in refused.items()}, "archives": archives}
target = pathlib.Path(__file__).with_suffix(".json")
target.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
