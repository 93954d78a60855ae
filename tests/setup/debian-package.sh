# Sourced by the setup scripts: takes one program out of a Debian package without installing the package.
# Nothing of the system changes: apt gets a sources list, a lists folder and a cache of its own, below the work folder.

# Prints the address of the system's own Debian mirror; fails where there is none.
debian_mirror() {
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 2>/dev/null |
        grep -v -- '-security' | head -n 1
}

# unpack_packages SUITE WORK PACKAGE...: leaves the packages' files below WORK/root.
unpack_packages() {
    local suite=$1 work=$2 mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    shift 2
    mirror=$(debian_mirror)
    if [ -z "$mirror" ] || [ ! -r "$keyring" ]; then
        return 1
    fi
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/root"
    echo "deb [signed-by=$keyring] $mirror $suite main" >"$work/sources.list"
    (
        cd "$work" &&
            apt-get -qq "${private_apt[@]}" update &&
            apt-get -qq "${private_apt[@]}" download "$@" &&
            for deb in *.deb; do dpkg -x "$deb" root || exit 1; done
    ) >&2
}

# apt's settings, relative to the work folder. The sandbox user could not read a work folder of root's.
private_apt=(
    -o Dir::Etc::SourceList=./sources.list
    -o Dir::Etc::SourceParts=/dev/null
    -o Dir::State::Lists=./lists
    -o Dir::Cache=./cache
    -o APT::Sandbox::User=root
    -o Acquire::Languages=none
)
