/* launch: starts a program of the tree that this file stands in, on a node that has none of what it needs.

   The tree is what `istio-iptables cni install` makes: istio_iptables/cni/node/tree.py says what is in it. This file
   is its only program that the kernel can start by itself; all others are started by the tree's own dynamic linker,
   with the tree's own libraries. Which one is said by the name that it is called by, as `bin/nft`; by any other
   name it is the plugin. Build it with: cc -static -Os -s -o launch launch.c */

#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#define PLUGIN "import sys; from istio_iptables.__main__ import cni; sys.exit(cni())"

static char root[PATH_MAX];

/* A failure of the plugin is JSON on standard output (CNI specification, "Error"). */
static int fail(const char *what)
{
    printf("{\"cniVersion\": \"0.4.0\", \"code\": 5, \"msg\": \"istio-iptables-cni cannot be started: %s: %s\"}\n",
           what, strerror(errno));
    return 1;
}

static char *in_tree(const char *name)
{
    char *path;
    if (asprintf(&path, "%s/%s", root, name) < 0)
        exit(fail("memory"));
    return path;
}

int main(int argc, char **argv)
{
    const char *executed = (const char *)getauxval(AT_EXECFN);
    if (!executed || !realpath(executed, root))
        return fail(executed ? executed : "its path");
    *strrchr(root, '/') = '\0';

    const char *called = argc > 0 ? argv[0] : "";
    const char *name = strrchr(called, '/') ? strrchr(called, '/') + 1 : called;
    char *relative;
    if (asprintf(&relative, "libexec/%s", name) < 0)
        return fail("memory");
    char *program = in_tree(relative);
    int is_plugin = !*name || access(program, X_OK) != 0;
    if (is_plugin)
        program = in_tree("libexec/python3");

    const char *path = getenv("PATH");
    char *with_ours;
    if (asprintf(&with_ours, "%s/bin%s%s", root, path ? ":" : "", path ? path : "") < 0)
        return fail("memory");
    setenv("PATH", with_ours, 1);
    char *extensions = in_tree("lib/xtables"); /* of the tree's iptables, if it has one */
    if (access(extensions, X_OK) == 0)
        setenv("XTABLES_LIBDIR", extensions, 1);

    char *linker = in_tree("lib/ld.so");
    char **arguments = calloc(argc + 16, sizeof *arguments);
    if (!arguments)
        return fail("memory");
    int count = 0;
    arguments[count++] = linker;
    arguments[count++] = "--inhibit-cache";
    arguments[count++] = "--library-path";
    arguments[count++] = in_tree("lib");
    arguments[count++] = "--argv0";
    arguments[count++] = is_plugin ? program : (char *)called;
    arguments[count++] = program;
    if (is_plugin) {
        arguments[count++] = "-I";
        arguments[count++] = "-S";
        arguments[count++] = "-c";
        arguments[count++] = PLUGIN;
    }
    for (int number = 1; number < argc; number++)
        arguments[count++] = argv[number];
    execv(linker, arguments);
    return fail(linker);
}
