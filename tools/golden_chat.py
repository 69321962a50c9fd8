"""Make tests/golden/chat.json: conversations as Jinja2 renders them through chat templates.

SmolLM2's template comes from the model file. The others are short programs written here that state what the
published template of the family does with system, user and assistant messages (no tools, no images).
Rendered as Hugging Face does it: trim_blocks, lstrip_blocks, a raise_exception function.

    golden_chat.py [--models DIR]
"""

import argparse
import json
import os
import pathlib

import jinja2.sandbox
from gguf import GGUFReader

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "golden" / "chat.json"
SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"

# A turn of ChatML; the default system message is put in front of it.
CHATML = """{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
{% endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""


def chatml(default, quote="'"):
    return ("{% if messages[0]['role'] != 'system' %}{{ " + quote + "<|im_start|>system\\n" + default
            + "<|im_end|>\\n" + quote + " }}{% endif %}\n" + CHATML)


LLAMA2 = """{% if messages[0]['role'] == 'system' %}
{% set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}{% set rest = messages[1:] %}
{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}
{% for message in rest %}
{% if message['role'] == 'user' %}
{% set text = system + message['content'] if loop.first else message['content'] %}
{{ bos_token + '[INST] ' + text.strip() + ' [/INST]' -}}
{% else %}
{{ ' ' + message['content'].strip() + ' ' + eos_token -}}
{% endif %}
{% endfor %}"""

LLAMA3 = """{{ bos_token -}}
{% for message in messages %}
{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' -}}
{% endfor %}
{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""

LLAMA31 = """{{ bos_token -}}
{% if messages[0]['role'] == 'system' %}
{% set system = messages[0]['content'] | trim %}{% set messages = messages[1:] %}
{% else %}{% set system = '' %}{% endif %}
{{ '<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date: December 2023\\n' -}}
{{ 'Today Date: 26 Jul 2024\\n\\n' + system + '<|eot_id|>' -}}
""" + LLAMA3.split("\n", 1)[1]

GEMMA = """{{ bos_token -}}
{% if messages[0]['role'] == 'system' %}
{% set first = messages[0]['content'] + '\\n\\n' %}{% set rest = messages[1:] %}
{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}
{% for message in rest %}
{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{ '<start_of_turn>' + role + '\\n' + (first if loop.first else '') -}}
{{ message['content'] | trim + '<end_of_turn>\\n' -}}
{% endfor %}
{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""


def mistral(head, tail, answer, where, trim=""):
    """`where`: the user message that the system message stands in, loop.first or loop.last."""
    return ("{{ bos_token -}}\n"
            "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] + '\\n\\n' %}"
            "{% set rest = messages[1:] %}{% else %}{% set system = '' %}{% set rest = messages %}{% endif %}\n"
            "{% for message in rest %}{% if message['role'] == 'user' %}"
            "{{ \"" + head + "\" + (system if " + where + " else '') + message['content'] + \"" + tail + "\" }}"
            "{% else %}{{ '" + answer + "' + message['content']" + trim + " + eos_token }}{% endif %}{% endfor %}")


MISTRAL7 = """{{ bos_token -}}
{% for message in messages %}
{% if message['role'] == 'user' %}{{ '[INST]@' + message['content'] + '[/INST]' -}}
{% elif message['role'] == 'system' %}{{ '[SYSTEM_PROMPT]@' + message['content'] + '[/SYSTEM_PROMPT]' -}}
{% else %}{{ '@' + message['content'] + eos_token -}}{% endif %}
{% endfor %}"""

PHI3 = """{% for message in messages %}
{% if message['role'] == 'system' and message['content'] %}{{ '<|system|>\\n' + message['content'] + '<|end|>\\n' -}}
{% elif message['role'] == 'user' %}{{ '<|user|>\\n' + message['content'] + '<|end|>\\n' -}}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n' + message['content'] + '<|end|>\\n' -}}{% endif %}
{% endfor %}
{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"""

ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% else %}
{{ '<|assistant|>\\n' + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""

DEEPSEEK = """{{ bos_token -}}
{% for message in messages %}
{% if message['role'] == 'system' %}{{ message['content'] -}}
{% elif message['role'] == 'user' %}{{ '<\uff5cUser\uff5c>' + message['content'] -}}
{% else %}{{ '<\uff5cAssistant\uff5c>' + message['content']@ + '<\uff5cend\u2581of\u2581sentence\uff5c>' -}}
{% endif %}
{% endfor %}
{% if add_generation_prompt %}{{ '<\uff5cAssistant\uff5c>#' }}{% endif %}"""

QWEN3 = CHATML.replace("message['content'] +", "(message['content'].split('</think>')[-1].lstrip('\\n')"
                       " if message['role'] == 'assistant' and '</think>' in message['content']"
                       " else message['content']) +")

# name, the format that must be recognised, its template, bos, eos
TEMPLATES = [
    ("chatml", "chatml", CHATML, "", "<|im_end|>"),
    ("chatml with a message", "chatml", chatml("You are Hermes.\\nBe \\'brief\\'."), "", "<|im_end|>"),
    ("chatml, double quotes", "chatml", chatml("It's a \\\"test\\\"", '"'), "", "<|im_end|>"),
    ("qwen2.5", "qwen", chatml("You are Qwen, created by Alibaba Cloud. You are a helpful assistant."), "",
     "<|im_end|>"),
    ("qwen3", "qwen3", QWEN3, "", "<|im_end|>"),
    ("llama2", "llama2", LLAMA2, "<s>", "</s>"),
    ("llama3", "llama3", LLAMA3, "<|begin_of_text|>", "<|eot_id|>"),
    ("llama3.1", "llama3.1", LLAMA31, "<|begin_of_text|>", "<|eot_id|>"),
    ("gemma3", "gemma", GEMMA, "<bos>", "<eos>"),
    ("mistral", "mistral", mistral("[INST] ", " [/INST]", "", "loop.first"), "<s>", "</s>"),
    ("mistral-v1", "mistral-v1", mistral(" [INST] ", " [/INST]", " ", "loop.first"), "<s>", "</s>"),
    ("mistral-v3", "mistral-v3",
     mistral("[INST] ", "[/INST]", " ", "loop.last", " | trim") + "{# [AVAILABLE_TOOLS] #}", "<s>", "</s>"),
    ("mistral-nemo", "mistral-v3-tekken",
     mistral("[INST]", "[/INST]", "", "loop.last") + "{# [AVAILABLE_TOOLS] #}", "<s>", "</s>"),
    ("mistral-v7", "mistral-v7", MISTRAL7.replace("@", " "), "<s>", "</s>"),
    ("mistral-v7-tekken", "mistral-v7-tekken", MISTRAL7.replace("@", ""), "<s>", "</s>"),
    ("phi3.5", "phi3", PHI3, "<s>", "<|endoftext|>"),
    ("tinyllama", "zephyr", ZEPHYR, "<s>", "</s>"),
    ("stablelm", "stablelm", ZEPHYR, "<|endoftext|>", "<|endoftext|>"),
    ("deepseek-v3", "deepseek", DEEPSEEK.replace("@", "").replace("#", ""), "<bos>", "<eos>"),
    ("deepseek-r1", "deepseek-r1", DEEPSEEK.replace("@", ".split('</think>')[-1]").replace("#", "<think>\\n"),
     "<bos>", "<eos>"),
]


def talk(*texts, system=None):
    """User and assistant in turn, a system message in front."""
    turns = [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(texts)]
    return ([] if system is None else [{"role": "system", "content": system}]) + turns


CONVERSATIONS = [
    talk("Hello"),
    talk("Hello", system="You are terse."),
    talk("Hi", "Hello! How can I help?", "Who are you?"),
    talk("Hi", "Hello! How can I help?", "Who are you?", system="Answer in French."),
    talk("  white space\n", "\t around \n\n", "\u00a0\u3000all of it\u2028 ", system="  kept or not \n"),
    talk("", "", "", system=""),
    talk("naïve 日本語 👩‍👩‍👧", "<think>\nhm\n</think>\n\nyes", "{{ braces }} {% percent %}", system="zwölf"),
    talk("a\n\nb", "c\r\nd", "e", "f", "g"),
]


def render(template, messages, bos, eos, opened):
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)

    def raise_exception(message):
        raise ValueError(message)

    env.globals["raise_exception"] = raise_exception
    text = env.from_string(template).render(messages=messages, bos_token=bos, eos_token=eos,
                                            add_generation_prompt=opened)
    return text.removeprefix(bos)


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--models", default=os.environ.get("KEYHOLE_MODELS", "~/.cache/keyhole/models"))
    folder = pathlib.Path(args.parse_args().models).expanduser()
    smollm2 = GGUFReader(folder / SMOLLM2).fields["tokenizer.chat_template"].contents()
    out = []
    for name, kind, template, bos, eos in [("smollm2", "smollm", smollm2, "", "<|im_end|>"), *TEMPLATES]:
        cases = [{"messages": m, "open": opened, "text": render(template, m, bos, eos, opened)}
                 for m in CONVERSATIONS for opened in (True, False)]
        out.append({"name": name, "format": kind, "template": template, "eos": eos, "cases": cases})
    OUT.write_text(json.dumps(out, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    print(len(out), "templates,", OUT.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
