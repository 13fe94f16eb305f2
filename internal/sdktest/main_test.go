package sdktest

import (
	"testing"

	"github.com/kapsel-dev/kapsel/internal/chaos"
)

func TestMain(m *testing.M) { chaos.Main(m) }
