#!/bin/sh
# Installs what Navarch needs: Debian packages where this runs as root, Python packages into a virtual environment.
set -eu

PYTHON="${PYTHON:-python3}"
VENV="${VENV:-.venv}"
PACKAGES="containerd runc containernetworking-plugins nftables iptables conntrack iproute2 busybox-static docker-registry etcd-server haproxy dbus-daemon ca-certificates"

say() { printf '%s\n' "$*" >&2; }

debian_packages() {
    wanted="$PACKAGES"
    # The virtual environment needs ensurepip, which Debian packs apart from its Python.
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || wanted="$wanted python3-venv"
    missing=""
    for package in $wanted; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    say "Installing Debian packages:$missing"
    # Packages that start services must not do so here: each cluster runs its own containerd, each test its own registry.
    policy=""
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        policy=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' > "$policy"
        chmod +x "$policy"
        trap 'rm -f "$policy"' EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    # shellcheck disable=SC2086
    apt-get install -y --no-install-recommends $missing >/dev/null 2>&1 || {
        apt-get update >/dev/null
        # shellcheck disable=SC2086
        apt-get install -y --no-install-recommends $missing >/dev/null
    }
    [ -z "$policy" ] || rm -f "$policy"
    trap - EXIT
    # Nor at the next start of the machine: tests start an etcd of their own.
    case " $missing " in *" etcd-server "*) systemctl disable etcd >/dev/null 2>&1 || true ;; esac
    # Nor HAProxy: nodes run their own where there are Ingresses.
    case " $missing " in *" haproxy "*) systemctl disable haproxy >/dev/null 2>&1 || true ;; esac
}

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    say "Navarch needs Python 3.11 or newer; $PYTHON is $("$PYTHON" -V). Set PYTHON to a newer one."
    exit 1
}

debian=""
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    if "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
        debian_packages &    # beside the Python packages, which do not need them
        debian=$!
    else
        debian_packages
    fi
fi

if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
    say "This Python cannot make virtual environments. Install the package python3-venv (as root: apt-get install python3-venv)."
    exit 1
fi

say "Installing Python packages into $VENV"
"$PYTHON" tools/install.py "$VENV"
[ -z "$debian" ] || wait "$debian"
