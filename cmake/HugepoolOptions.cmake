# The flags that every target of the project is compiled with.

set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_C_STANDARD 11)
set(CMAKE_C_STANDARD_REQUIRED ON)
set(CMAKE_C_EXTENSIONS ON)
# Without NDEBUG: tests must be able to fail in every build, and the library has no assert on its paths.
set(CMAKE_C_FLAGS_RELWITHDEBINFO "-O2 -g")
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g")

function(hugepool_options target)
	target_compile_definitions(${target} PRIVATE _GNU_SOURCE)
	target_compile_options(${target} PRIVATE -Wall -Wextra -Wno-format-truncation "$<$<COMPILE_LANGUAGE:C>:-Wshadow;-Wstrict-prototypes>"
		$<$<BOOL:${HUGEPOOL_WERROR}>:-Werror>)
	if(HUGEPOOL_SANITIZE)
		target_compile_options(${target} PRIVATE -fsanitize=${HUGEPOOL_SANITIZE} -fno-sanitize-recover=all
			-fno-omit-frame-pointer)
		if(HUGEPOOL_SANITIZE MATCHES "thread")
			target_compile_options(${target} PRIVATE -Wno-tsan) # fences: the sanitizer does not model them
		endif()
	endif()
endfunction()

if(HUGEPOOL_SANITIZE)
	add_link_options(-fsanitize=${HUGEPOOL_SANITIZE})
endif()
