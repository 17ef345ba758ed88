#!/usr/bin/env bash
# Says which system package is missing, and the command that installs it, before pip says it in a hundred lines.
set -u
python="$1"
install="sudo apt-get install python3.11 python3.11-venv libpython3.11"
if ! command -v "$python" >/dev/null 2>&1; then
    echo "llm-retrain: $python is missing; expected Python 3.11. On Debian or Ubuntu: $install" >&2
    echo "llm-retrain: or name another interpreter: make PYTHON=/path/to/python3.11 ..." >&2
    exit 1
fi
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ "$version" != "3.11" ]; then
    echo "llm-retrain: $python is Python $version; expected 3.11, which Triton's Python backend is built for. $install" >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    echo "llm-retrain: $python cannot make virtual environments. On Debian or Ubuntu: sudo apt-get install python3.11-venv" >&2
    exit 1
fi
libraries=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("LIBDIR"))')
if ! ls "$libraries"/libpython3.11.so.1.0 /usr/lib/*/libpython3.11.so.1.0 >/dev/null 2>&1; then
    echo "llm-retrain: libpython3.11.so.1.0 is missing, which Triton's Python backend needs. On Debian or Ubuntu: sudo apt-get install libpython3.11" >&2
    exit 1
fi
free_kilobytes=$(df -Pk . | awk 'NR == 2 {print $4}')
if [ "$free_kilobytes" -lt 8000000 ]; then
    echo "llm-retrain: $(pwd) has $((free_kilobytes / 1000000)) GB free; the environments and a run need about 8 GB" >&2
    exit 1
fi
