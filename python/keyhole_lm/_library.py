"""libkeyhole as ctypes sees it: where it lies, its structs field by field, its functions, its errors.

A struct has the name and the fields of the one in include/keyhole/; tests/python asks a C compiler for its layout."""

import ctypes
import ctypes.util
import functools
import os
import pathlib
import re
import types
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_double, c_float, c_int, c_int32, c_size_t, c_uint32, c_uint64, c_void_p

VERSION = "0.1"


class KeyholeError(Exception):
    """What a call of the library, or this package, says when it refuses. `status`: the C status."""

    def __init__(self, sentence, status=-2):
        super().__init__(sentence)
        self.status = status


TYPES = {"int": c_int, "float": c_float, "double": c_double, "int32": c_int32, "uint32": c_uint32, "uint64": c_uint64, "none": None,
         "size": c_size_t, "unsigned": ctypes.c_uint, "text": c_char_p, "pointer": c_void_p, "int32*": POINTER(c_int32),
         "uint32*": POINTER(c_uint32), "float*": POINTER(c_float), "text*": POINTER(c_char_p), "out": c_void_p}  # fmt: skip

# "struct: type member member; type member ..." or "callback = what it returns, then its arguments".
DECLARATIONS = """
kh_model_info: text path architecture name quantisation tokenizer pre identity; uint64 file_bytes parameters; int layers width heads key_heads
  head_width ff_width vocabulary encoder_layers context window local_layers add_bos tied classes towers parallel gated experts paired
kh_session_options: size context; int longer threads; size batch; int k_type v_type; text attn ff; int precision key_shadow; size forks; int stats
take_logits = int pointer size size float* | kh_read_options: take_logits logits; pointer logits_context progress progress_context
kh_attn_row: int layer head; size row; int32 position; size count; uint32* keys; float* weights; float m u kept
take_point = none pointer int int float* size size | take_row = none pointer kh_attn_row* | take_block = none pointer size size
kh_probe: pointer context; uint64 points; take_point point; take_row rows
kh_sampler_options: float temperature; int top_k; float top_p min_p repeat_penalty; int repeat_last; uint64 seed; pointer bias; size bias_count
kh_choice: int32 id; float logprob sampled | take_token = int pointer pointer size kh_choice* kh_choice* size
kh_generate_options: kh_sampler_options sampler; size max_tokens; text* stop; size stop_count; int ignore_end context_shift; size keep;
  int special top_logprobs; take_token token; pointer context
kh_generate_result: size tokens; double seconds; int finish | kh_component: int kind layer index key
kh_direction: int kind; int32 token; int layer neuron; float* data | kh_lens_token: int32 id; float logit probability; uint32 rank
kh_edit: kh_component part; int operation; float value high; int other; kh_direction direction second; int32 first last first_step last_step
kh_lens_cell: size position; int layer tap; size top_count bottom_count tracked_count; kh_lens_token* top bottom tracked; double entropy kl norm next
take_cell = int pointer kh_lens_cell* | kh_share: kh_component part; double value; float coefficient; int source; double source_value
kh_lens_options: size first count; int first_layer layers; unsigned taps; int top bottom; int32* tracked; size tracked_count; take_cell cell;
  pointer context
kh_why_options: size position; int32 a b; size most | kh_neuron_here: int layer neuron; float coefficient; double score value
kh_why: kh_lens_token a b; double total sum leftover scale; kh_share embed bias; double heads neurons mlps edits; kh_share* strong_heads strong_neurons;
  size head_count neuron_count; kh_share* attention mlp; int layers
kh_neurons_options: size position; int layer; int32 a b; size most; int by_value
kh_compared: size position; double kl; kh_lens_token base_top edited_top; double base_entropy edited_entropy; float base_next edited_next
take_compared = int pointer kh_compared*
"""

C = types.SimpleNamespace()
for declaration in re.split(r"\||\n(?! )", DECLARATIONS.strip()):
    name, kind, rest = re.fullmatch(r"(\w+) ?([:=]) (.*)", declaration.strip(), re.DOTALL).groups()
    if kind == "=":
        made = CFUNCTYPE(*[TYPES[t] for t in rest.split()])
    else:
        made = type(name, (ctypes.Structure,), {"_fields_": [(n, TYPES[m.split()[0]]) for m in rest.split(";") for n in m.split()[1:]]})
        TYPES[name + "*"] = POINTER(made)
    TYPES[name] = made
    setattr(C, name, made)

# Name, what it returns ("status" is checked), arguments.
FUNCTIONS = """
kh_version text | kh_last_error text | kh_point_name text int | kh_model_open status out text | kh_model_close none pointer
kh_model_get_info kh_model_info* pointer | kh_model_get_kind int pointer | kh_model_tokenize status pointer text size unsigned out out
kh_model_detokenize status pointer int32* size unsigned out out | kh_model_piece size pointer int32 pointer size | kh_free_ids none pointer
kh_free_text none pointer | kh_session_open status out pointer kh_session_options* | kh_session_close none pointer
kh_session_rewind status pointer size | kh_session_read status pointer int32* size kh_read_options* | kh_session_observe none pointer kh_probe*
kh_session_stop none pointer | kh_component_text size kh_component* pointer size | kh_edit_parse status kh_edit* pointer text
kh_inspector_open status out pointer kh_session_options* | kh_inspector_close none pointer
kh_inspector_set status pointer int32* size size kh_edit* size | kh_inspector_length size pointer | kh_inspector_stop none pointer
kh_inspector_watch status pointer size size kh_probe* pointer pointer
kh_inspector_generate status pointer kh_generate_options* kh_generate_result* | kh_lens status pointer kh_lens_options*
kh_why_open status kh_why* pointer kh_why_options* | kh_why_free none kh_why* | kh_neurons status pointer kh_neurons_options* out out
kh_neurons_free none pointer | kh_compare status pointer size pointer pointer
"""


def find():
    """The path of the library, or a sentence that says where it was looked for."""
    built = (folder / "build" / "libkeyhole.so" for folder in pathlib.Path(__file__).resolve().parents)
    found = os.environ.get("KEYHOLE_LIBRARY") or next((str(file) for file in built if file.exists()), None)
    found = found or ctypes.util.find_library("keyhole")
    if not found:
        raise KeyholeError("libkeyhole was not found: set KEYHOLE_LIBRARY to the file libkeyhole.so, build keyhole (make) in the folder "
                           "above this package, or install it (make install)", -8)  # fmt: skip
    return found


@functools.cache
def library():
    """The functions, by their C names; a status other than 0 becomes a KeyholeError with the library's sentence."""
    path, out = find(), types.SimpleNamespace()

    def check(status):
        if status != 0:
            raise KeyholeError(out.kh_last_error().decode("utf-8", "replace"), status)

    try:
        loaded = ctypes.CDLL(path)
        for name, answer, *arguments in map(str.split, re.split("[|\n]", FUNCTIONS.strip())):
            function = getattr(loaded, name)
            function.argtypes, function.restype = [TYPES[a] for a in arguments], check if answer == "status" else TYPES[answer]
            setattr(out, name, function)
    except (OSError, AttributeError) as error:
        raise KeyholeError(f"{path} could not be opened as libkeyhole {VERSION}: {error}", -8) from None
    if not out.kh_version().startswith(VERSION.encode() + b"."):
        raise KeyholeError(f"{path} is version {out.kh_version().decode()}: this package was written for {VERSION}")
    return out
