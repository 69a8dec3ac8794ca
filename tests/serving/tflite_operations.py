"""What is in a .tflite file, read by TFLite's own schema."""

import zipfile

import pytest

schema = pytest.importorskip("ai_edge_litert.schema_py_generated")

OPERATORS = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
TYPES = {value: name for name, value in vars(schema.TensorType).items() if not name.startswith("_")}


def contents(path):
    """The flatbuffer of a file, without what the zip archive adds."""
    with zipfile.ZipFile(path) as archive:
        return path.read_bytes()[: min(one.header_offset for one in archive.infolist())]


def operations(flatbuffer):
    """(name, output's scope, input types, output types) of each operation, those inside loops too."""
    root = schema.Model.GetRootAsModel(flatbuffer, 0)
    for graph in map(root.Subgraphs, range(root.SubgraphsLength())):
        for operator in map(graph.Operators, range(graph.OperatorsLength())):
            code = root.OperatorCodes(operator.OpcodeIndex())
            assert code.CustomCode() is None
            tensors = [
                [graph.Tensors(index) for index in places if index >= 0]
                for places in (operator.InputsAsNumpy(), operator.OutputsAsNumpy())
            ]
            types = [[TYPES[tensor.Type()] for tensor in row] for row in tensors]
            yield OPERATORS[code.BuiltinCode()], tensors[1][0].Name().decode(), *types
