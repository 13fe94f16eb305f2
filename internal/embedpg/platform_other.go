//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package embedpg

import (
	"errors"
	"os"
	"runtime"
	"syscall"
)

var errUnsupported = errors.New("running PostgreSQL is not supported on " + runtime.GOOS + ": set KAPSEL_DATABASE_URL to a running server")

func supported() error { return errUnsupported }

func tryLock(*os.File) error { return errUnsupported }

func attributes(*account) *syscall.SysProcAttr { return nil }
